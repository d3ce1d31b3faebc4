// Which histories of a node's database the product believes. A node has a new epoch once its database was restored or
// copied; from then on the same `seq` may name another fact, so an operator decides before anything is overwritten.
import type { Doc } from "./_generated/dataModel";
import type { MutationCtx, QueryCtx } from "./_generated/server";
import { recordAudit } from "./audit";
import { refusal, type ServiceCtx } from "./functions";

/** The node's accepted epochs in the order of their acceptance. */
export async function acceptedEpochs(ctx: QueryCtx, node_id: string): Promise<Doc<"nodeEpochs">[]> {
  const epochs = await ctx.db
    .query("nodeEpochs")
    .withIndex("by_node", (q) => q.eq("node_id", node_id))
    .collect();
  return epochs.sort((one, other) => one.ordinal - other.ordinal);
}

/**
 * Makes `epoch` the newest of the node, and returns whether that changed anything. One that was accepted before becomes
 * the newest again: a wrong decision can be taken back.
 */
export async function accept(ctx: MutationCtx, node_id: string, epoch: string, actor: string): Promise<boolean> {
  const epochs = await acceptedEpochs(ctx, node_id);
  const newest = epochs.at(-1);
  if (newest?.epoch === epoch) return false;
  const row = { node_id, epoch, ordinal: (newest?.ordinal ?? 0) + 1, accepted_at: new Date().toISOString() };
  const stored = epochs.find((one) => one.epoch === epoch);
  if (stored === undefined) await ctx.db.insert("nodeEpochs", row);
  else await ctx.db.replace(stored._id, row);
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
      await accept(ctx, ctx.node_id, epoch, ctx.actor);
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
