interface Window {
  comfyAPI?: { utils?: { applyTextReplacements?: (app: object, text: string) => string } };
}
