package rest

import (
	"fmt"
	"strconv"

	"hanse/api/orderpb"
	"hanse/internal/order"
)

func eventType(ev *orderpb.Event) string { return order.EventType(ev) }

func uintString(n uint64) string { return strconv.FormatUint(n, 10) }

// summary tells in a sentence where an order stands.
func summary(o *orderpb.Order) string {
	s := fmt.Sprintf("Order of %s worth %d %s in minor units is %s", count(len(o.Lines), "line"), o.Total, o.Currency, order.StateName(o.State))
	if o.Reason != "" {
		s += because(o.Reason)
	}
	s += fmt.Sprintf("; payment %s, fulfillment %s, returns %s.", order.PaymentStatus(o), order.FulfillmentStatus(o), order.ReturnStatus(o))
	if len(o.Stuck) > 0 {
		s += fmt.Sprintf(" %s stuck: a person has to look.", count(len(o.Stuck), "step"))
	}
	return s
}
