export { runCampaign, type CampaignOptions, type CampaignResult } from "./campaign.js";
export { PLANTED_BUGS, type Planted } from "./planted.js";
export { makeScenario, type Fault, type Scenario } from "./scenario.js";
export { shrink, simulateScenario, simulateSeed, type RunResult } from "./simulate.js";
