package rest

import (
	"strings"

	"hanse/api/inventorypb"
	"hanse/api/orderpb"
	"hanse/api/paymentpb"
	"hanse/internal/order"
)

// needsAttention says whether a person has to look: a step is stuck, a shipment could not be charged, or a
// refund failed for good. What an operator has given up is decided.
func needsAttention(o *orderpb.Order) bool {
	if len(o.Stuck) > 0 || o.State == orderpb.State_ON_HOLD {
		return true
	}
	for _, r := range o.Refunds {
		if r.Failed != "" && r.Failed != order.GivenUp {
			return true
		}
	}
	return false
}

var (
	legStates    = lowerNames(orderpb.LegState_name, "LEG_")
	paymentSteps = lowerNames(orderpb.PaymentStep_name, "PAYMENT_")
	dispositions = lowerNames(orderpb.Disposition_name, "")
	holdStates   = lowerNames(inventorypb.HoldState_name, "HOLD_")
	opStates     = lowerNames(paymentpb.OpState_name, "OP_")
	opKinds      = lowerNames(paymentpb.OpKind_name, "OP_")
)

// lowerNames turns the names of an enum, which count from 0 without gaps, into those of the API.
func lowerNames(names map[int32]string, prefix string) []string {
	out := make([]string, len(names))
	for n, name := range names {
		out[n] = strings.ToLower(strings.TrimPrefix(name, prefix))
	}
	return out
}

// nameOf returns the name of an enum value; one from a later version has none here.
func nameOf[T ~int32](names []string, v T) string {
	if v < 0 || int(v) >= len(names) {
		return "unknown"
	}
	return names[v]
}
