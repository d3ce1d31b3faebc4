// Which histories of a node's database the product believes. A node has a new epoch once its database was restored or
// copied; from then on the same `seq` may name another fact, so an operator decides before anything is overwritten.
import type { Doc } from "./_generated/dataModel";
import type { MutationCtx, QueryCtx } from "./_generated/server";
import { recordAudit } from "./audit";
import { refusal, type ServiceCtx } from "./functions";

/** The node's accepted epochs, the oldest first. */
export async function acceptedEpochs(ctx: QueryCtx, node_id: string): Promise<Doc<"nodeEpochs">[]> {
  const epochs = await ctx.db
    .query("nodeEpochs")
    .withIndex("by_node", (q) => q.eq("node_id", node_id))
    .collect();
  return epochs.sort((one, other) => one.ordinal - other.ordinal);
}

/** Puts `epoch` before another accepted epoch, or last as the newest, and returns whether that changed anything. */
export async function accept(
  ctx: MutationCtx,
  { node_id, epoch, before, actor }: { node_id: string; epoch: string; before?: string; actor: string },
): Promise<boolean> {
  const stored = await acceptedEpochs(ctx, node_id);
  const order = stored.map((one) => one.epoch).filter((one) => one !== epoch);
  const place = before === undefined ? order.length : order.indexOf(before);
  if (place < 0) throw refusal("invalid", `The node ${node_id} has no other accepted epoch ${before}`);
  order.splice(place, 0, epoch);
  if (stored.length === order.length && stored.every((one, index) => one.epoch === order[index])) return false;

  const accepted_at = new Date().toISOString();
  for (const [index, name] of order.entries()) {
    const row = stored.find((one) => one.epoch === name);
    if (row !== undefined) await ctx.db.patch(row._id, { ordinal: index + 1 });
    else await ctx.db.insert("nodeEpochs", { node_id, epoch: name, ordinal: index + 1, accepted_at });
  }
  const served = await ctx.db
    .query("nodeTenants")
    .withIndex("by_node_tenant", (q) => q.eq("node_id", node_id))
    .collect();
  for (const { tenant_id } of served) {
    await recordAudit(ctx, { tenant_id, actor, action: "node.epoch_accepted", subject: `${node_id}:${epoch}` });
  }
  return true;
}

/** Tells the place of one of the node's epochs among the accepted ones. Errors: `epoch_mismatch`. */
export type EpochOrder = (epoch: string | undefined) => Promise<number>;

/**
 * The order of the calling node's epochs. They are read once per call, and written when there is none yet: the first
 * one is accepted on first use. An absent epoch (a node of an older version) comes before all others.
 */
export function epochOrder(ctx: ServiceCtx): EpochOrder {
  let epochs: Doc<"nodeEpochs">[] | undefined;
  return async (epoch) => {
    if (epoch === undefined) return 0;
    epochs ??= await acceptedEpochs(ctx, ctx.node_id);
    if (epochs.length === 0) {
      await accept(ctx, { node_id: ctx.node_id, epoch, actor: ctx.actor });
      epochs = await acceptedEpochs(ctx, ctx.node_id);
    }
    const known = epochs.find((one) => one.epoch === epoch);
    if (known === undefined) throw mismatch(epoch, epochs.at(-1)!.epoch);
    return known.ordinal;
  };
}

function mismatch(told: string, accepted: string) {
  const [theirs, ours] = [told.slice(0, 8), accepted.slice(0, 8)];
  return refusal(
    "epoch_mismatch",
    `The node tells the history ${theirs}, the product accepted ${ours}; an operator of the product decides`,
  );
}
