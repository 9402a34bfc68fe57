// Package inventory decides what happens to stock: the counters of each SKU at each location, and the holds that
// orders and carts place on them.
//
//	            reserve               allocate               fulfill
//	available ──────────▶ reserved ────────────▶ allocated ──────────▶ (left on_hand)
//	  ▲  ▲                   │                       │                       │
//	  │  └───── release ─────┴─────── release ───────┘                       │
//	  └────────────────────────── restock ───────────────────────────────────┘   (damaged: to unavailable)
//
// A [Hold] is all that one order, or one free-standing reservation, keeps in one shard: one line for each SKU, whatever
// the number of order lines that ask for it. It is taken whole or not at all, in the one place
// where the counters are, so no caller can check against a number that another is about to use.
// [Transitions] lists what each command does to a hold in each state; the code looks its answers up there.
//
// Messages come at least once and not always in order. So the hold remembers:
//   - a release before its reserve leaves a VOID hold, which refuses the reserve when it comes;
//   - a refused reserve leaves a REFUSED hold, which gives the same answer to its repetition;
//   - each fulfillment, return and partial release is recorded by its operation ID and is done once.
//
// A tentative reserve is for an order that is on its way to be on record, and may never be. Its hold counts as any other; it is one of an order on
// record from the first message that only such an order sends. Who needs the same units meanwhile, an order on record, an adjustment or a free-standing
// reservation, is not refused but asked to wait, for they may come back in a moment, and comes before other tentative ones; a tentative reserve that falls short leaves no trace. When the hold falls due its order is asked, and one that is not
// on record then never will be: the hold expires.
//
// A fulfillment that overtakes its allocate allocates first. A return cannot overtake its fulfillment (the outbox
// delivers messages about one key in order), so one that returns more than was fulfilled is a mismatch, not a retry.
//
// Holds of ended orders are kept without limit: they are rows that nobody reads, and forgetting
// one would let a message that was delayed for a month take stock for an order that is over.
//
// An item may be untracked. Demands on it always succeed and count nothing; the hold's line then has quantity
// 0, so a change of tracking in between cannot unbalance the counters. Receipts and adjustments count in any case.
//
// The package is pure: its functions read and write through [Books] and get the time in milliseconds
// since 1970 from the log entry. On a rejection nothing has changed, except that a refusal is remembered.
//
// Invariants, for each SKU and location (checked before every write):
//
//	on_hand = available + reserved + allocated + unavailable, none of them negative
//	reserved  = Σ quantity − fulfilled − released over its lines in HELD and TENTATIVE holds
//	tentative = the part of reserved that is in TENTATIVE holds
//	allocated = Σ quantity − fulfilled − released over its lines in ALLOCATED holds
//	on_hand   = Σ movements − Σ fulfilled + Σ restocked
package inventory
