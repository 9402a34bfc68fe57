// Package saga turns what happens to an order into the commands that other services get.
//
//	placed ──▶ reserve in each inventory shard ──▶ all held ──▶ authorize ──▶ authorized = confirmed ──▶ allocate
//	              │ refused                                        │ declined        (the pivot: forward only)
//	              ▼                                                ▼
//	           release ◀──────────────────────────────────────── release            fulfilled ──▶ fulfill, capture
//	cancel, deadline ──▶ void ──▶ release       steps are undone in reverse          returned ──▶ restock, refund
//
// It is a function: an event, with the order it led to, gives the [Send]s that follow ([Follow]); the answer to one gives the
// decision of package order that takes it ([Answer]). The order's own state is the saga's, so there is nothing else to
// keep. Sends travel through the outbox of the order's shard and carry keys that do not depend on the attempt: the order's ID,
// a fulfillment's, a return's. Receivers recognize repeats and what comes out of turn.
//
// Invariant: a step is undone only after every later one is: the payment is voided before stock is released.
package saga
