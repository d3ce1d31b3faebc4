// One value, one control.
import { useContext, useId } from "react";
import { FormContext, idOf, useFaults, Words, wordsOf, type FieldProps } from "./fields";
import { limits, type Schema } from "./schema";

function described(path: string, isWrong: boolean) {
  return { id: idOf(path), "aria-describedby": `${idOf(path)}-words`, "aria-invalid": isWrong || undefined };
}

function hintOf({ description, type, default: preset, ...bounds }: Schema): string {
  const range = type === "integer" || type === "number" ? limits(bounds).trim() : "";
  const isTold = ["string", "number", "boolean"].includes(typeof preset);
  return [description?.replace(/`/g, ""), range, isTold ? `else ${String(preset)}` : ""].filter(Boolean).join("; ");
}

type TextProps = FieldProps & { rows?: number; numeric?: boolean; hint?: string; placeholder?: string };

export function Text({ schema, path, name, needed, draft, set, rows, numeric, hint, placeholder }: TextProps) {
  const { suggestions } = useContext(FormContext);
  const isWrong = useFaults(path).length > 0;
  const list = useId();
  const known = suggestions[path];
  const common = {
    ...described(path, isWrong),
    required: needed,
    value: (draft as string | undefined) ?? "",
    spellCheck: false,
    autoComplete: "off",
    placeholder:
      placeholder ?? (schema.default === undefined || schema.default === null ? undefined : String(schema.default)),
  };
  return (
    <div className={`field ${numeric ? "field-number" : ""}`}>
      <label htmlFor={idOf(path)}>{wordsOf(name)}</label>
      {rows === undefined ? (
        <input
          {...common}
          inputMode={numeric ? "numeric" : undefined}
          list={known ? list : undefined}
          onChange={(event) => set(event.target.value)}
        />
      ) : (
        <textarea {...common} rows={rows} onChange={(event) => set(event.target.value)} />
      )}
      {known && (
        <datalist id={list}>
          {known.map((each) => (
            <option key={each} value={each} />
          ))}
        </datalist>
      )}
      <Words path={path} hint={[hint, hintOf(schema)].filter(Boolean).join("; ")} />
    </div>
  );
}

export function Check({ schema, path, name, draft, set }: FieldProps) {
  return (
    <div className="field">
      <label>
        <input
          id={idOf(path)}
          type="checkbox"
          checked={draft === true}
          onChange={(event) => set(event.target.checked)}
        />{" "}
        {wordsOf(name)}
      </label>
      <Words path={path} hint={schema.description} />
    </div>
  );
}

export function Choice({ schema, path, name, needed, draft, set }: FieldProps) {
  const isWrong = useFaults(path).length > 0;
  const preset = schema.default === undefined ? "" : ` (${String(schema.default)})`;
  return (
    <div className="field">
      <label htmlFor={idOf(path)}>{wordsOf(name)}</label>
      <select
        {...described(path, isWrong)}
        value={(draft as string) ?? ""}
        onChange={(event) => set(event.target.value)}
      >
        {!needed && <option value="">as usual{preset}</option>}
        {schema.enum!.map((each) => (
          <option key={String(each)}>{String(each)}</option>
        ))}
      </select>
      <Words path={path} hint={schema.description?.replace(/`/g, "")} />
    </div>
  );
}
