// Reading a JSON schema: what kind of control a part of it calls for, and what a new part begins with.

/** A schema with its reference followed; what stands beside the reference holds too. */
export function resolved(schema, root) {
  if (!schema?.$ref) return schema ?? {};
  const found = schema.$ref
    .replace(/^#\//, "")
    .split("/")
    .reduce((node, step) => node?.[step.replaceAll("~1", "/").replaceAll("~0", "~")], root);
  const beside = Object.entries(schema).filter(([key]) => key !== "$ref");
  return { ...resolved(found, root), ...Object.fromEntries(beside) };
}

const isNull = (schema) => schema.type === "null" || schema.const === null;
const scalar = new Set(["string", "number", "integer", "boolean"]);

/**
 * What a schema describes: {kind, schema, nullable, ...}.
 *
 * kind: object, union (with `tag` and `variants`), array (with `items`), map (with `values`), choice (with `options`),
 * flag, number, text, fixed, json
 */
export function shape(given, root) {
  const schema = resolved(given, root);
  const options = (schema.anyOf ?? schema.oneOf ?? []).map((one) => resolved(one, root));
  if (options.length) {
    const some = options.filter((one) => !isNull(one));
    const nullable = some.length < options.length;
    const about = Object.fromEntries(
      ["description", "default", "title"].filter((key) => key in schema).map((key) => [key, schema[key]]),
    );
    if (some.length === 1) return { ...shape({ ...some[0], ...about }, root), nullable };
    if (some.every((one) => scalar.has(one.type))) return { kind: "text", schema: { ...some[0], ...about }, nullable };
    const tag =
      schema.discriminator?.propertyName ??
      Object.keys(some[0].properties ?? {}).find((name) =>
        some.every((one) => "const" in (one.properties?.[name] ?? {})),
      );
    if (!tag) return { kind: "json", schema, nullable };
    const variants = some.map((one) => ({
      value: one.properties[tag].const,
      name: one.title ?? one.properties[tag].const,
      about: one.properties[tag].description ?? one.description ?? "",
      schema: one,
    }));
    return { kind: "union", schema, nullable, tag, variants };
  }
  if ("const" in schema) return { kind: "fixed", schema };
  if (schema.enum) return { kind: "choice", schema, options: schema.enum };
  if (schema.type === "array") return { kind: "array", schema, items: schema.items ?? {} };
  if (schema.properties) return { kind: "object", schema };
  const values = schema.additionalProperties || Object.values(schema.patternProperties ?? {})[0];
  if (schema.type === "object") return { kind: "map", schema, values: values === true || !values ? {} : values };
  if (schema.type === "boolean") return { kind: "flag", schema };
  if (schema.type === "number" || schema.type === "integer") return { kind: "number", schema };
  return { kind: schema.type === "string" ? "text" : "json", schema };
}

/** Whether a kind is one control, and not a group of them. */
export const simple = (kind) => !["object", "union", "array", "map"].includes(kind);

/** What a new part begins with: what is required, and the tag that says what it is. `suggest(name)` gives likely texts. */
export function fresh(given, root, suggest = () => [], name = "") {
  const found = shape(given, root);
  const { schema } = found;
  if (found.kind === "fixed") return schema.const;
  if (found.kind === "object") {
    const whole = {};
    for (const [key, one] of Object.entries(schema.properties)) {
      if ("const" in resolved(one, root) || schema.required?.includes(key)) whole[key] = fresh(one, root, suggest, key);
    }
    return whole;
  }
  if (found.kind === "union") return fresh(found.variants[0].schema, root, suggest, name);
  if (found.kind === "array")
    return Array.from({ length: schema.minItems ?? 0 }, () => fresh(found.items, root, suggest, name));
  if (found.kind === "map") return {};
  if ("default" in schema) return structuredClone(schema.default);
  if (found.kind === "choice") return found.options[0];
  if (found.kind === "flag") return false;
  if (found.kind === "number") return schema.minimum ?? 0;
  return suggest(name)[0] ?? "";
}
