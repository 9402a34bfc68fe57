// Package bench measures how many orders a system takes, in a closed loop.
//
//	Workload ──▶ Basket ──▶ Client ──▶ the system      one goroutine per client:
//	  draws       3 SKUs      ▲  │                     the next order goes out when
//	  SKUs                    └──┴──▶ Histogram        the one before is confirmed
//
// The same loop, baskets and clock measure every system, so that numbers of one run can be compared. [REST] is the
// client of Hanse's door. It speaks HTTP/1.1 on its own connections: it shares the machine with what it measures, and
// net/http's client costs more than the order does.
//
// A run can prove more than speed: what was confirmed is counted by SKU and compared with the stock afterwards
// ([Shop.Check]).
package bench
