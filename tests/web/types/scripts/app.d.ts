import type { App } from "../../../../web/js/types";

export const app: App;
