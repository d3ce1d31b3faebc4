// A field for every kind of schema. Each tells its faults beside itself, and is found by its path.
import { createContext, useContext, useRef, type ReactNode } from "react";
import { draftOf, type Draft } from "./draft";
import { Choices, Group, List, Optional, Pairs, Union } from "./groups";
import { Check, Choice, Text } from "./inputs";
import { isLong, joined, kindOf, plain, type Fault, type Schema } from "./schema";

type Form = { root: Schema; faults: readonly Fault[]; suggestions: Readonly<Record<string, readonly string[]>> };
export const FormContext = createContext<Form>({ root: {}, faults: [], suggestions: {} });
export const FormProvider = FormContext.Provider;

type Set = (draft: Draft) => void;
export type FieldProps = { schema: Schema; path: string; name: string; needed: boolean; draft: Draft; set: Set };

/** The id of a field's control: a summary of faults links to it. */
export function idOf(path: string): string {
  return `field-${path}`;
}

export function Field(props: FieldProps) {
  const { root } = useContext(FormContext);
  const schema = plain(root, props.schema);
  const own = { ...props, schema };
  switch (kindOf(root, schema)) {
    case "constant":
      return null;
    case "boolean":
      return <Check {...own} />;
    case "choice":
      return <Choice {...own} />;
    case "choices":
      return <Choices {...own} />;
    case "list":
      return <List {...own} />;
    case "map":
      return <Pairs {...own} />;
    case "object":
      return schema.nullable ? <Optional {...own} /> : <Group {...own}>{fields(own)}</Group>;
    case "union":
      return <Union {...own} />;
    case "json":
      return <Text {...own} rows={5} hint="as JSON" />;
    case "time":
      return <Text {...own} placeholder="2026-03-01T18:00:00Z" />;
    case "number":
      return <Text {...own} numeric />;
    default:
      return <Text {...own} rows={isLong(schema) ? 4 : undefined} />;
  }
}

/** The properties of an object: first those that are needed, then the others, folded away until they say something. */
export function Properties({
  schema,
  path,
  draft,
  set,
}: {
  schema: Schema;
  path: string;
  draft: { [name: string]: Draft };
  set: (draft: { [name: string]: Draft }) => void;
}) {
  const { root, faults } = useContext(FormContext);
  const { properties = {}, required = [] } = schema;
  const names = Object.keys(properties).filter((name) => kindOf(root, plain(root, properties[name]!)) !== "constant");
  const further = names.filter((name) => !required.includes(name));
  const isTold = (name: string) =>
    JSON.stringify(draft[name]) !== JSON.stringify(draftOf(root, properties[name]!, undefined)) ||
    faults.some((fault) => `${fault.path}.`.startsWith(`${joined(path, name)}.`));
  const opened = useRef(false); // it stays so, whatever is emptied
  opened.current ||= further.some(isTold);
  const field = (name: string) => (
    <Field
      key={name}
      schema={properties[name]!}
      path={joined(path, name)}
      name={name}
      needed={required.includes(name)}
      draft={draft[name]}
      set={(changed) => set({ ...draft, [name]: changed })}
    />
  );
  return (
    <>
      {names.filter((name) => required.includes(name)).map(field)}
      {further.length > 0 && (
        <details className="further" open={opened.current || undefined}>
          <summary>{further.map(wordsOf).join(", ")}</summary>
          {further.map(field)}
        </details>
      )}
    </>
  );
}

export function fields({ schema, path, draft, set }: FieldProps): ReactNode {
  return <Properties schema={schema} path={path} draft={draft as { [name: string]: Draft }} set={set} />;
}

const CAPITALS: Record<string, string> = { cpu: "CPUs", gpus: "GPUs", qos: "QOS", url: "URL", sha256: "SHA-256" };

/** "walltime_seconds" as people write it. */
export function wordsOf(name: string): string {
  if (name in CAPITALS) return CAPITALS[name]!;
  const words = name
    .replace(/_/g, " ")
    .replace(/ mib$/, " (MiB)")
    .replace(/ seconds$/, " (s)");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

export function useFaults(path: string): string[] {
  const { faults } = useContext(FormContext);
  return faults.filter((fault) => fault.path === path).map(({ message }) => message);
}

export function Words({ path, hint }: { path: string; hint?: ReactNode }) {
  const found = useFaults(path);
  return (
    <span id={`${idOf(path)}-words`} className={found.length > 0 ? "fault" : "hint"}>
      {found.length > 0 ? found.map((message) => `${path} ${message}`).join("; ") : hint}
    </span>
  );
}
