export { measureLoad, type LoadResult, type MeasureHooks } from "./measure-load.js";
export { defaultCollection, type LoadOptions } from "./load-options.js";
export { rowOfLoad, tableOfLoads } from "./load-table.js";
