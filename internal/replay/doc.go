// Package replay turns the invoices of a real shop into requests, and makes them.
//
//	rows ──▶ Planner ──▶ Plan ──▶ Drive ──▶ Shop (a cluster)
//	file      pure       receipts   one worker per lane,
//	order                lanes      many lanes at once
//
// A [Row] is a line of the file. The [Planner] reads rows in file order and decides what they mean: a line of an order,
// a stock adjustment or a return. What has an order among itself becomes a [Lane]: all actions of one
// customer, one guest order, one adjustment. Lanes do not depend on one another, because enough stock for
// the whole file is received before the first of them starts.
//
// Invariants: the plan is a function of the rows alone. The plan for the first N orders is the beginning of the plan for
// more: the same actions under the same idempotency keys, so that a replay that was interrupted or limited
// can be started again, and further, without booking anything twice.
package replay
