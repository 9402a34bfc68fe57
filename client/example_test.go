package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"hanse/client"
)

func Example() {
	c, err := client.New(client.Config{Addrs: []string{"127.0.0.1:7400"}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	// The key is the shop's own name of the order: whatever happens, it is placed once.
	o, err := c.PlaceOrder(ctx, "cart-1815", &client.PlaceOrder{
		CustomerID: "ann", Currency: "EUR", Payment: &client.Method{Method: "card"},
		Lines: []client.NewLine{{SKU: "MUG-BLUE", Quantity: 2, UnitPrice: 1250}},
	})
	if refused, ok := errors.AsType[*client.Error](err); ok && refused.Code == "out_of_stock" {
		fmt.Println("sold out:", refused.Field())
		return
	}
	if err != nil {
		log.Print(err)
		return
	}
	fmt.Println(o.ID, o.State)
}

func ExampleClient_Follow() {
	c, err := client.New(client.Config{Addrs: []string{"127.0.0.1:7400"}})
	if err != nil {
		log.Fatal(err)
	}
	position := "start" // or what was kept by an earlier run
	for f, err := range c.Follow(context.Background(), client.FollowOptions{After: position, Types: []string{"order.confirmed"}}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(f.Event.OrderID)
		position = f.Position // keep it: the next run goes on behind it
		fmt.Println(position)
	}
}
