package node

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"hanse/internal/notification"
)

// TestCluster_tells_a_receiver takes the whole way: a receiver is registered at one node, an order placed at another, and when the
// node that delivers stops, the next one goes on.
func TestCluster_tells_a_receiver(t *testing.T) {
	type delivery struct {
		id, signature string
		stamp         int64
		body          []byte
	}
	deliveries := make(chan delivery, 1024)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		stamp, _ := strconv.ParseInt(r.Header.Get("Webhook-Timestamp"), 10, 64)
		deliveries <- delivery{r.Header.Get("Webhook-Id"), r.Header.Get("Webhook-Signature"), stamp, body}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer receiver.Close()

	c := startCluster(t, 3)
	status, endpoint := c.do(0, "POST", "/v1/webhooks", "w1", m{"url": receiver.URL, "types": []string{"order.placed", "order.confirmed", "order.fulfilled"}})
	secret, _ := endpoint["secret"].(string)
	if status != 201 || secret == "" {
		t.Fatalf("register: %d %v", status, endpoint)
	}
	if status, a := c.do(0, "POST", "/v1/stock/MUG/receipts", "r1", m{"quantity": 10}); status != 201 {
		t.Fatalf("receive: %d %v", status, a)
	}
	place := func(node int, key string) string {
		status, a := c.do(node, "POST", "/v1/orders", key, m{"customer_id": key, "currency": "EUR", "lines": []m{{"sku": "MUG", "quantity": 1, "unit_price": 1250}}, "payment": m{"method": "card"}})
		if status != 201 {
			t.Fatalf("place: %d %v", status, a)
		}
		return a["id"].(string)
	}
	version := make(map[string]float64) // by order
	expect := func(order string, types ...string) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for len(types) > 0 {
			var d delivery
			select {
			case d = <-deliveries:
			case <-deadline:
				t.Fatalf("%v of order %s have not come", types, order)
			}
			if err := notification.Verify(secret, d.id, d.stamp, d.signature, d.body, time.Now().Unix()); err != nil {
				t.Fatalf("%s: %v", d.id, err)
			}
			var e struct {
				ID, Type string
				OrderID  string `json:"order_id"`
				Version  float64
			}
			if err := json.Unmarshal(d.body, &e); err != nil || e.ID != d.id {
				t.Fatalf("body %s of %s: %v", d.body, d.id, err)
			}
			if e.Version <= version[e.OrderID] {
				continue // again, after the change of leaders
			}
			if e.OrderID != order || e.Type != types[0] {
				t.Fatalf("got %s of %s, want %s of %s", e.Type, e.OrderID, types[0], order)
			}
			version[e.OrderID], types = e.Version, types[1:]
		}
	}
	first := place(1, "ann")
	expect(first, "order.placed", "order.confirmed")

	leader := -1
	_, shards := c.do(0, "GET", "/v1/shards", "", nil)
	for _, s := range shards["shards"].([]any) {
		if s := s.(map[string]any); s["id"] == "notification/0" {
			leader = int(s["leader"].(float64)) - 1
		}
	}
	if leader < 0 {
		t.Fatalf("nobody leads notification/0: %v", shards)
	}
	c.stop(leader)
	other := (leader + 1) % 3
	c.ready(other)
	if status, a := c.do(other, "POST", "/v1/orders/"+first+"/fulfillments", "f1", m{}); status != 201 {
		t.Fatalf("fulfill: %d %v", status, a)
	}
	expect(first, "order.fulfilled")
	expect(place(other, "ben"), "order.placed", "order.confirmed")
}
