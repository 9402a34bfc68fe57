// Package client talks to a Hanse cluster.
//
//	c, err := client.New(client.Config{Addrs: []string{"127.0.0.1:7400"}})
//	o, err := c.PlaceOrder(ctx, "", &client.PlaceOrder{CustomerID: "ann", Currency: "EUR",
//		Lines: []client.NewLine{{SKU: "MUG", Quantity: 1, UnitPrice: 1250}}})
//
// Any node takes any request. The client spreads requests over the nodes it knows and learns the others from them (see
// Config.Pinned). It leaves a node that does not answer at once, chooses those that are to be stopped or do not fare well last,
// and repeats what was not answered, always with the same idempotency key: that of the caller, or one it draws. So a method that
// returns has done its work once, however often it had to ask.
//
//	request ──▶ a node ──▶ answer, or refusal: *Error
//	   ▲          │ 429, 503, 504: after Retry-After and a random pause
//	   └──────────┴ no connection, no answer: the next node, now
//
// What the cluster has refused comes back as an [*Error] with a permanent code; [ErrUnavailable] says that until the end
// of the context, or of Config.RetryFor, nobody answered. Amounts are whole minor units of the order's currency.
package client
