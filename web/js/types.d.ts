// Types of the front-end's objects, as far as this pack uses them.

export interface Widget {
  name: string;
  type: string;
  value: any;
  label?: string;
  serialize?: boolean;
  element?: HTMLElement;
  callback?: (value: any, ...rest: any[]) => any;
  computeSize?: (width?: number) => [number, number];
  computeLayoutSize?: unknown;
  serializeValue?: () => unknown;
  onRemove?: () => void;
}

export interface Slot {
  name: string;
  type: string;
  link?: number | null;
  links?: number[] | null;
}

export interface Link {
  origin_id: number;
  target_id: number;
  target_slot: number;
}

export interface Graph {
  id?: string;
  nodes: Node[];
  links: Record<number, Link>;
  rootGraph?: Graph;
  getNodeById(id: number | string): Node | null;
}

export interface Node {
  id: number;
  title: string;
  mode: number;
  comfyClass: string;
  constructor: Function & { nodeData?: { input?: { required?: Record<string, unknown> } } };
  type: string;
  graph: Graph | null;
  subgraph?: Graph;
  inputs: Slot[];
  outputs: Slot[];
  widgets?: Widget[];
  size: [number, number];
  onRemoved?: () => void;
  onAdded?: (graph: Graph) => void;
  onConfigure?: (data: object) => void;
  onConnectionsChange?: (...change: any[]) => void;
  serialize(): { widgets_values?: unknown };
  addDOMWidget(name: string, type: string, element: HTMLElement, options: object): Widget;
}

export interface App {
  graph: Graph;
  rootGraph?: Graph;
  configuringGraph: boolean;
  canvas: {
    emitBeforeChange(): void;
    emitAfterChange(): void;
    setDirty(front: boolean, back: boolean): void;
    processMouseDown(event: PointerEvent): void;
    processMouseMove(event: PointerEvent): void;
    processMouseUp(event: PointerEvent): void;
    processMouseWheel(event: WheelEvent): void;
  };
  ui: { settings: { addEventListener(type: string, listener: () => void): void } };
  extensionManager: {
    setting: { get(id: string): any; set(id: string, value: any): Promise<void> };
    toast: { add(message: { severity: string; summary: string; detail: string; life?: number }): void };
    dialog: {
      confirm(options: { title: string; message: string; type?: string }): Promise<boolean | null>;
      prompt(options: { title: string; message: string; defaultValue?: string }): Promise<string | null>;
    };
    registerSidebarTab(tab: object): void;
    sidebarTab: { activeSidebarTabId: string | null; toggleSidebarTab(id: string): void };
    command: { execute(id: string): Promise<void> };
  };
  registerExtension(extension: object): void;
  queuePrompt(number: number, count?: number): Promise<boolean>;
  graphToPrompt(): Promise<Prompt>;
  loadGraphData(data: object, clean?: boolean): Promise<void>;
  handleFile(file: File): Promise<void>;
}

/** A prompt as the front-end sends it: `output` is the graph in API form. */
export interface Prompt {
  output: Record<string, { class_type: string; inputs: Record<string, any> }>;
  workflow: object;
}

export interface Api {
  clientId?: string;
  addEventListener(type: string, listener: (event: CustomEvent<any>) => void): void;
  removeEventListener(type: string, listener: (event: CustomEvent<any>) => void): void;
  apiURL(path: string): string;
  fetchApi(path: string, options?: RequestInit): Promise<Response>;
  interrupt(prompt: string): Promise<void>;
  deleteItem(type: string, id: string): Promise<void>;
  queuePrompt(number: number, prompt: Prompt, options: { partialExecutionTargets: string[] }): Promise<{ prompt_id: string }>;
  dispatchCustomEvent(type: string, detail: unknown): void;
  getCustomNodesI18n(): Promise<Record<string, { longlive?: Record<string, string> }>>;
}

/** A film as the server tells of it: `FilmInfo` in nodes/films.py. */
export interface Film {
  key: string;
  prompt_id: string;
  node: string;
  workflow: string;
  name: string;
  subfolder: string;
  type: string;
  mime: string;
  bytes: number;
  frames: number;
  total_frames: number;
  fps: number;
  width: number;
  height: number;
  shot: number;
  shots: number;
  cuts: number[];
  pace: number;
  left: number | null;
  state: "waiting" | "making" | "done" | "stopped" | "failed";
  line: string;
  take: string | null;
  /** Of several versions of a shot, which are made in the take in place of a film. */
  versions?: { shot: number; wanted: number; made: number[] } | null;
  /** In answers of the server only. */
  scripts?: { node: string; version: number; begun: number; shots: number }[];
  blocks?: [number, number][];
}
