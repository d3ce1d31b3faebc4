// Several values under one name: objects, alternatives, lists and maps.
import { useContext, type ReactNode } from "react";
import { draftOf, fieldsOf, type Chosen, type Draft, type Pair } from "./draft";
import { Field, fields, FormContext, idOf, Properties, Words, wordsOf, type FieldProps } from "./fields";
import { joined, plain, variantsOf } from "./schema";

export function Choices(props: FieldProps) {
  const { root } = useContext(FormContext);
  const chosen = (props.draft as string[] | undefined) ?? [];
  const all = plain(root, props.schema.items!).enum!.map(String);
  return (
    <Group {...props}>
      <div className="checks">
        {all.map((each) => (
          <label key={each}>
            <input
              type="checkbox"
              checked={chosen.includes(each)}
              onChange={({ target: { checked } }) =>
                props.set(all.filter((other) => (other === each ? checked : chosen.includes(other))))
              }
            />{" "}
            {each}
          </label>
        ))}
      </div>
    </Group>
  );
}

export function Group({
  path,
  name,
  schema,
  children,
  aside,
}: FieldProps & { children: ReactNode; aside?: ReactNode }) {
  return (
    <fieldset id={idOf(path)} tabIndex={-1}>
      <legend>{wordsOf(name)}</legend>
      {aside}
      <Words path={path} hint={schema.description?.replace(/`/g, "")} />
      {children}
    </fieldset>
  );
}

export function Optional(props: FieldProps) {
  const { root } = useContext(FormContext);
  const isSet = props.draft !== undefined;
  const toggle = (
    <label>
      <input
        type="checkbox"
        checked={isSet}
        onChange={({ target: { checked } }) => props.set(checked ? fieldsOf(root, props.schema, {}) : undefined)}
      />{" "}
      use it
    </label>
  );
  return (
    <Group {...props} aside={toggle}>
      {isSet && fields(props)}
    </Group>
  );
}

export function Union(props: FieldProps) {
  const { root } = useContext(FormContext);
  const { path, schema, draft, set } = props;
  const variants = variantsOf(root, schema);
  const { variant, fields: held } = draft as unknown as Chosen;
  const chosen = variants.find(({ name }) => name === variant)!;
  const change = (name: string) => {
    const next = variants.find((each) => each.name === name)!;
    // What both have stays.
    const kept = Object.entries(held).filter(([each]) => each in (next.schema.properties ?? {}));
    const blank = fieldsOf(root, next.schema, undefined);
    const common = kept.filter(([each, value]) => typeof value === typeof blank[each] && typeof value === "string");
    set({ variant: name, fields: { ...blank, ...Object.fromEntries(common) } } as unknown as Draft);
  };
  return (
    <Group
      {...props}
      schema={{ description: chosen.schema.description }}
      aside={
        <select aria-label={`Kind of ${props.name}`} value={variant} onChange={(event) => change(event.target.value)}>
          {variants.map(({ name }) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      }
    >
      <Properties
        schema={chosen.schema}
        path={path}
        draft={held}
        set={(changed) => set({ variant, fields: changed } as unknown as Draft)}
      />
    </Group>
  );
}

export function List(props: FieldProps) {
  const { root } = useContext(FormContext);
  const { schema, path, draft, set, name } = props;
  const rows = (draft as Draft[] | undefined) ?? [];
  const item = plain(root, schema.items ?? {});
  return (
    <Group {...props}>
      <Rows
        count={rows.length}
        noun={name}
        remove={(index) => set(rows.filter((_, other) => other !== index))}
        add={() => set([...rows, draftOf(root, item, undefined)])}
      >
        {(index) => (
          <Field
            schema={item}
            path={joined(path, index)}
            name={`${name} ${index + 1}`}
            needed
            draft={rows[index]}
            set={(changed) => set(rows.map((row, other) => (other === index ? changed : row)))}
          />
        )}
      </Rows>
    </Group>
  );
}

export function Pairs(props: FieldProps) {
  const { path, set, name } = props;
  const rows = (props.draft as unknown as Pair[] | undefined) ?? [];
  const change = (changed: Pair[]) => set(changed as unknown as Draft);
  const edit = (index: number, part: Partial<Pair>) =>
    change(rows.map((row, other) => (other === index ? { ...row, ...part } : row)));
  return (
    <Group {...props}>
      <Rows
        count={rows.length}
        noun={name}
        remove={(index) => change(rows.filter((_, other) => other !== index))}
        add={() => change([...rows, { name: "", value: "" }])}
      >
        {(index) => {
          const row = rows[index]!;
          const place = joined(path, row.name);
          return (
            <div className="pair" id={idOf(place)} tabIndex={-1}>
              <input
                aria-label={`Name of ${name} ${index + 1}`}
                placeholder="NAME"
                value={row.name}
                spellCheck={false}
                onChange={(event) => edit(index, { name: event.target.value })}
              />
              <input
                aria-label={`Value of ${name} ${index + 1}`}
                placeholder="value"
                value={row.value}
                spellCheck={false}
                onChange={(event) => edit(index, { value: event.target.value })}
              />
              <Words path={place} />
            </div>
          );
        }}
      </Rows>
    </Group>
  );
}

function Rows({
  count,
  noun,
  add,
  remove,
  children,
}: {
  count: number;
  noun: string;
  add: () => void;
  remove: (index: number) => void;
  children: (index: number) => ReactNode;
}) {
  return (
    <>
      <ol className="rows">
        {Array.from({ length: count }, (_, index) => (
          <li key={index}>
            {children(index)}
            <button
              type="button"
              className="remove"
              aria-label={`Remove ${noun} ${index + 1}`}
              onClick={() => remove(index)}
            >
              ×
            </button>
          </li>
        ))}
      </ol>
      <button type="button" onClick={add}>
        Add to {noun}
      </button>
    </>
  );
}
