// Settings of takes that save themselves. The server reads them where the front-end stores them: nodes/keep_settings.py.

const KEEP = "LongLive.Takes.Keep";
const LIMIT = "LongLive.Takes.Limit";

export const takeSettings = {
  name: "LongLive.TakeSettings",
  settings: [
    {
      id: KEEP,
      name: "Films keep their takes",
      category: ["LongLive", "LongLiveTakes", "Keep"],
      type: "boolean",
      defaultValue: true,
      tooltip:
        "Every film made on the canvas is stored block by block, so that it goes on after a crash and an edit samples only what changed.",
    },
    {
      id: LIMIT,
      name: "Limit of these takes in GB",
      category: ["LongLive", "LongLiveTakes", "Limit"],
      type: "number",
      defaultValue: 10,
      attrs: { min: 0, max: 100000, step: 1 },
      tooltip: "Above it, the oldest takes without a locked shot are offered for removal. Nothing is removed by itself.",
    },
  ],
};
