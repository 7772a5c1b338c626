/**
 * config.json of a model whose weights are written as float32. transformers writes `dtype` since 4.56, which wins where
 * both stand; `torch_dtype` is read by every version.
 */
export function float32Config(hfConfig: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const config: Record<string, unknown> = { ...hfConfig, torch_dtype: "float32" };
  delete config.dtype;
  return config;
}
