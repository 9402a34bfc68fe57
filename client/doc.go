// Package client talks to a Hanse cluster.
//
//	c, err := client.New(client.Config{Addrs: []string{"127.0.0.1:7400"}})
//	o, err := c.PlaceOrder(ctx, client.PlaceOrder{CustomerID: "ann", Currency: "EUR",
//		Lines: []client.NewLine{{SKU: "MUG", Quantity: 1, UnitPrice: 1250}}})
//
// Any node takes any request. The client spreads requests over the nodes it knows, moves on when one does not answer, and
// repeats what may be repeated: reads, and changes with the same idempotency key, which it draws when the caller gives none.
// What the cluster has refused comes back as an [*Error] with a permanent code.
package client
