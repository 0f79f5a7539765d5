import type { Api } from "../../../../web/js/types";

export const api: Api;
