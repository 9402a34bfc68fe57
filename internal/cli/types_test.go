package cli

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"hanse/client"
	"hanse/internal/rest"
)

// fields lists the JSON of a type: a path to each value, and what kind it is. Times are texts in JSON.
func fields(t reflect.Type, path string, all map[string]string) map[string]string {
	switch {
	case t.Kind() == reflect.Pointer:
		return fields(t.Elem(), path, all)
	case t.String() == "time.Time":
		all[path] = "string"
	case t.String() == "json.RawMessage", t.Kind() == reflect.Map:
		all[path] = "object"
	case t.Kind() == reflect.Slice:
		fields(t.Elem(), path+"[]", all)
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case name == "-":
			case f.Anonymous:
				fields(f.Type, path, all)
			default:
				fields(f.Type, path+"."+name, all)
			}
		}
	default:
		all[path] = t.Kind().String()
	}
	return all
}

// The client has types of its own; their JSON is the API's. What the API may leave out, and the client does not ask for, is listed.
func TestTheClientKnowsTheWholeAPI(t *testing.T) {
	unasked := map[string]bool{ // of ?expand=, which Payment and Events read by themselves
		".events[]": true, ".payment.id": true, ".payment.order_id": true, ".payment.currency": true, ".payment.requested": true,
		".payment.operations[]": true, ".payment.provider_reference": true, ".payment.revision": true, ".payment.created_at": true, ".payment.updated_at": true,
	}
	skipped := func(field string) bool {
		for prefix := range unasked {
			for _, at := range []string{"", ".stored", ".folded", ".order"} {
				if rest, ok := strings.CutPrefix(field, at+prefix); ok && (rest == "" || rest[0] == '.') {
					return true
				}
			}
		}
		return false
	}
	for _, pair := range []struct{ ours, api any }{
		{client.PlaceOrder{}, rest.OrderRequest{}}, {client.Order{}, rest.Order{}}, {client.ReturnItems{}, rest.ReturnRequest{}},
		{client.Event{}, rest.Event{}}, {client.Story{}, rest.Story{}}, {client.Stock{}, rest.Stock{}}, {client.Location{}, rest.StockChanged{}},
		{client.StockChange{}, rest.StockChange{}}, {client.Reserve{}, rest.ReservationRequest{}}, {client.Reservation{}, rest.Reservation{}},
		{client.Payment{}, rest.Payment{}}, {client.Saga{}, rest.Saga{}}, {client.Overview{}, rest.NodePage{}}, {client.Shards{}, rest.ShardPage{}},
		{client.JoinNode{}, rest.NodeJoin{}}, {client.JoinedNode{}, rest.NodeJoined{}}, {client.Recovery{}, rest.ShardRecovery{}},
		{client.ClusterEvent{}, rest.JournalEntry{}}, {client.Records{}, rest.Records{}},
		{client.Written{}, rest.KeyWritten{}}, {client.Endpoint{}, rest.Endpoint{}},
		{client.Hold{}, rest.Hold{}}, {client.Movement{}, rest.Movement{}}, {client.Error{}, rest.Problem{}},
	} {
		ours, api := fields(reflect.TypeOf(pair.ours), "", map[string]string{}), fields(reflect.TypeOf(pair.api), "", map[string]string{})
		name := fmt.Sprintf("%T and %T", pair.ours, pair.api)
		for field, kind := range api {
			if ours[field] != kind && !skipped(field) {
				t.Errorf("%s: the API has %s (%s), the client %q", name, field, kind, ours[field])
			}
		}
		for field, kind := range ours {
			// A stock location stands alone, with its SKU, and in its SKU's list, without.
			if _, ok := api[field]; !ok && field != ".locations[].sku" {
				t.Errorf("%s: the client has %s (%s), the API does not", name, field, kind)
			}
		}
	}
}
