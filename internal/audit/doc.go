// Package audit recomputes a cluster's books from scratch and compares them with what it has stored, and with the provider's.
//
//	orders' events ─fold▶ orders ═══╗
//	                      holds  ═══╬═ joined by order, compared one by one
//	                      payments ═╝       ║
//	                        ║            provider's ledger
//	  movements + holds ════╩═sum══▶ counters of each SKU ═ compared with the stored ones
//
// Every order must be the fold of its events, every hold and every payment what its order says, every operation of a payment in the
// provider's ledger and none besides, and every counter the sum of what moved it. The events are folded here, not by the cluster that is
// audited. So stock and money are recomputed from the events, and a difference has the name of the order where it arose.
//
// The cluster may go on meanwhile. What is under way is told apart from what is wrong:
//   - an order whose saga has not ended is only held to what is true at every moment, and counted as open;
//   - an authorization without outcome counts as open, and its order may have been told of it: that hears it from the call, and the
//     payment when it asks;
//   - an order that differs is read again, alone, several times: its parts are read one after the other, and messages between
//     services take a moment;
//   - a SKU whose revision has changed while it was summed up is summed up again; one that never rests is counted as moving.
//
// Memory: shards are read in pages and joined as streams, for all are sorted by ID. What is kept is a few counters for each SKU and,
// with a ledger, some 150 bytes for each payment, for a ledger is sorted by time.
package audit
