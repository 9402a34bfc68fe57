// Package memtransport is a network within one process, whose owner decides what happens to each message.
//
//	Transport.Send ─▶ Link (from, to, class): m1 m2 m3 … ─▶ Pump, Run: in order, as one frame
//	      │                                              └▶ Take, then Deliver: late, twice, in any order or never
//	      └─ or Config.Intercept: the owner keeps the envelope and delivers it when it likes
//
// Messages are passed by pointer, without encoding. Nothing here reads a clock, draws a random number or starts a
// goroutine: in the simulator a seed decides, tests of other packages start Run.
//
// Invariant: a message reaches only the node it was sent to, at the address its sender last gave for it.
package memtransport
