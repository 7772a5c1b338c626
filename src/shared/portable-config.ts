import { isJsonObject } from "./strict-json.js";

type Fields = Readonly<Record<string, unknown>>;

/**
 * config.json of a model whose weights are written as float32, in the form that versions 4 and 5 of transformers read
 * alike. `dtype`, written since 4.56, wins where both stand; `torch_dtype` is read by every version. Version 4 does not
 * look into `rope_parameters` and takes 10,000 for a theta that stands there only.
 */
export function portableConfig(hfConfig: Fields): Record<string, unknown> {
  const config: Record<string, unknown> = { ...hfConfig, ...ropeFields(hfConfig), torch_dtype: "float32" };
  delete config.dtype;
  delete config.rope_parameters;
  return config;
}

/** `rope_theta` and `rope_scaling` for what parseModelConfig reads; nothing for a model without rotations. */
function ropeFields(hfConfig: Fields): Record<string, unknown> {
  const stated = [hfConfig.rope_scaling, hfConfig.rope_parameters]
    .filter(isJsonObject)
    .find((found) => Object.keys(found).length > 0);
  if (stated === undefined) return {};
  const { rope_theta, ...scaling } = stated;
  const isPlain = (scaling.rope_type ?? scaling.type ?? "default") === "default";
  return {
    ...((rope_theta ?? null) === null ? {} : { rope_theta }),
    rope_scaling: isPlain ? null : scaling,
  };
}
