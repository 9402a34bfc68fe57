package client

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// The key of a change is its idempotency key, 1 to 255 visible ASCII characters: however often the same change is sent
// with it, in seven days, it happens once, and the answer is the first one. Any other change of the caller with a used key is refused. A key with the
// customer's ID in braces, for example {ann}7f3a, saves its orders a round in the cluster.
// An empty key is drawn, of an order with its customer in braces where that can be; it protects against lost answers but not against a caller that
// calls twice.

// PlaceOrder places an order and waits for its outcome. A refused order is an [*Error] that holds it. When the outcome
// takes longer than Config.Wait the order comes back in state placing or awaiting_payment; the same call waits again.
func (c *Client) PlaceOrder(ctx context.Context, key string, p *PlaceOrder) (*Order, error) {
	if key == "" {
		key = keyOf(p.CustomerID)
	}
	return c.changeOrder(ctx, &request{method: http.MethodPost, path: "/v1/orders", key: key, waits: true}, p)
}

func (c *Client) changeOrder(ctx context.Context, q *request, body any) (*Order, error) {
	o, r, err := exchange[Order](ctx, c, q, body)
	if err != nil {
		return nil, err
	}
	o.Replayed = r.header.Get("Idempotent-Replayed") == "true"
	return o, nil
}

// Order reads an order; version 0 is as it is now.
func (c *Client) Order(ctx context.Context, id string, version uint64) (*Order, error) {
	path := "/v1/orders/" + segment(id)
	if version > 0 {
		path += "?version=" + strconv.FormatUint(version, 10)
	}
	return get[Order](ctx, c, path)
}

// pageSize is the number of rows that sequences ask for at once.
const pageSize = 200

func cursorQuery(cursor string, limit int) url.Values {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	return q
}

// Orders lists a page of a customer's orders, newest first, and the cursor of the next page, empty at the end.
func (c *Client) Orders(ctx context.Context, customer, cursor string, limit int) ([]Order, string, error) {
	q := cursorQuery(cursor, limit)
	q.Set("customer_id", customer)
	page, err := get[struct {
		Orders []Order `json:"orders"`
		Next   string  `json:"next_cursor"`
	}](ctx, c, "/v1/orders?"+q.Encode())
	if err != nil {
		return nil, "", err
	}
	return page.Orders, page.Next, nil
}

// AllOrders lists all of a customer's orders, newest first, page by page as they are used.
func (c *Client) AllOrders(ctx context.Context, customer string) iter.Seq2[Order, error] {
	return all(func(cursor string) ([]Order, string, error) { return c.Orders(ctx, customer, cursor, pageSize) })
}

// segment escapes an ID, SKU or key for a path: slashes too, and a lone . or .., which would be taken for steps.
func segment(s string) string {
	if s == "." || s == ".." {
		return strings.ReplaceAll(s, ".", "%2E")
	}
	return url.PathEscape(s)
}

func orderPath(id, what string) string { return "/v1/orders/" + segment(id) + "/" + what }

// Cancel cancels an order, or what is still open of it.
func (c *Client) Cancel(ctx context.Context, key, id, reason string) (*Order, error) {
	body := struct {
		Reason string `json:"reason,omitempty"`
	}{reason}
	return c.changeOrder(ctx, &request{method: http.MethodPost, path: orderPath(id, "cancel"), key: key, waits: true}, body)
}

// Fulfill ships items, or without any all that is open.
func (c *Client) Fulfill(ctx context.Context, key, id string, items []Item, tracking string) (*Order, error) {
	body := struct {
		Items    []Item `json:"items,omitempty"`
		Tracking string `json:"tracking,omitempty"`
	}{items, tracking}
	return c.changeOrder(ctx, &request{method: http.MethodPost, path: orderPath(id, "fulfillments"), key: key}, body)
}

// Return takes items back.
func (c *Client) Return(ctx context.Context, key, id string, r *ReturnItems) (*Order, error) {
	return c.changeOrder(ctx, &request{method: http.MethodPost, path: orderPath(id, "returns"), key: key}, r)
}

// Refund gives money back without goods.
func (c *Client) Refund(ctx context.Context, key, id string, amount int64, reason string) (*Order, error) {
	body := struct {
		Amount int64  `json:"amount"`
		Reason string `json:"reason,omitempty"`
	}{amount, reason}
	return c.changeOrder(ctx, &request{method: http.MethodPost, path: orderPath(id, "refunds"), key: key}, body)
}

// Events reads an order's history.
func (c *Client) Events(ctx context.Context, id string) ([]Event, error) {
	page, err := get[struct {
		Events []Event `json:"events"`
	}](ctx, c, orderPath(id, "events"))
	if err != nil {
		return nil, err
	}
	return page.Events, nil
}

// Explain reads an order's history in words.
func (c *Client) Explain(ctx context.Context, id string) (*Story, error) {
	return get[Story](ctx, c, orderPath(id, "explain"))
}

func stockPath(sku, what string) string { return "/v1/stock/" + segment(sku) + what }

// Stock reads a SKU at all its locations.
func (c *Client) Stock(ctx context.Context, sku string) (*Stock, error) {
	return get[Stock](ctx, c, stockPath(sku, ""))
}

// Receive books units in.
func (c *Client) Receive(ctx context.Context, key, sku string, change StockChange) (*Location, error) {
	return send[Location](ctx, c, http.MethodPost, stockPath(sku, "/receipts"), key, change)
}

// Adjust corrects the count, up or down.
func (c *Client) Adjust(ctx context.Context, key, sku string, change StockChange) (*Location, error) {
	return send[Location](ctx, c, http.MethodPost, stockPath(sku, "/adjustments"), key, change)
}

// SetTracking says whether stock of a SKU is counted.
func (c *Client) SetTracking(ctx context.Context, sku string, tracked bool, location string) (*Location, error) {
	body := struct {
		Tracked  bool   `json:"tracked"`
		Location string `json:"location,omitempty"`
	}{tracked, location}
	return send[Location](ctx, c, http.MethodPut, stockPath(sku, "/tracking"), "", body)
}

// Reserve holds stock without an order, for a while.
func (c *Client) Reserve(ctx context.Context, key string, r *Reserve) (*Reservation, error) {
	return send[Reservation](ctx, c, http.MethodPost, "/v1/reservations", key, r)
}

// Reservation reads what Reserve made.
func (c *Client) Reservation(ctx context.Context, id string) (*Reservation, error) {
	return get[Reservation](ctx, c, "/v1/reservations/"+segment(id))
}

// Release gives a reservation's stock back before its time.
func (c *Client) Release(ctx context.Context, id string) (*Reservation, error) {
	return send[Reservation](ctx, c, http.MethodDelete, "/v1/reservations/"+segment(id), "", nil)
}

// Payment reads a payment.
func (c *Client) Payment(ctx context.Context, id string) (*Payment, error) {
	return get[Payment](ctx, c, "/v1/payments/"+segment(id))
}

// Payments lists a page of the payments of one shard, after an ID; more says that others follow.
func (c *Client) Payments(ctx context.Context, shard int, after string, limit int, stuck bool) (payments []Payment, more bool, err error) {
	q := url.Values{"shard": {strconv.Itoa(shard)}, "after": {after}, "limit": {strconv.Itoa(limit)}, "stuck": {strconv.FormatBool(stuck)}}
	page, err := get[struct {
		Payments []Payment `json:"payments"`
		More     bool      `json:"has_more"`
	}](ctx, c, "/v1/payments?"+q.Encode())
	if err != nil {
		return nil, false, err
	}
	return page.Payments, page.More, nil
}

// PaymentPage lists a page of the payments of all shards, or only of those that need a person, and the cursor of the next page, empty at the end.
func (c *Client) PaymentPage(ctx context.Context, stuck bool, cursor string, limit int) ([]Payment, string, error) {
	index, after, _ := strings.Cut(cursor, "/")
	shard, err := strconv.ParseUint(index, 10, 16)
	if cursor != "" && err != nil {
		return nil, "", fmt.Errorf("client: %q is no cursor of payments", cursor)
	}
	shards, err := c.Shards(ctx)
	if err != nil {
		return nil, "", err
	}
	var page []Payment
	next := "" // behind the last row of the page
	for s := int(shard); s < shards.Counts["payment"]; s, after = s+1, "" {
		for more := true; more; {
			var rows []Payment
			if rows, more, err = c.Payments(ctx, s, after, min(limit+1-len(page), pageSize), stuck); err != nil {
				return nil, "", err
			}
			for _, p := range rows {
				if len(page) == limit {
					return page, next, nil
				}
				page, after = append(page, p), p.ID
				next = strconv.Itoa(s) + "/" + after
			}
			more = more && len(rows) > 0
		}
	}
	return page, "", nil
}

// AllPayments lists the payments of all shards, or only those that need a person.
func (c *Client) AllPayments(ctx context.Context, stuck bool) iter.Seq2[Payment, error] {
	return func(yield func(Payment, error) bool) {
		shards, err := c.Shards(ctx)
		if err != nil {
			yield(Payment{}, err)
			return
		}
		for shard := range shards.Counts["payment"] {
			for p, err := range all(func(after string) ([]Payment, string, error) {
				rows, more, err := c.Payments(ctx, shard, after, pageSize, stuck)
				if err != nil || !more || len(rows) == 0 {
					return rows, "", err
				}
				return rows, rows[len(rows)-1].ID, nil
			}) {
				if !yield(p, err) || err != nil {
					return
				}
			}
		}
	}
}

func operationPath(payment, op, act string) string {
	return "/v1/payments/" + segment(payment) + "/operations/" + segment(op) + "/" + act
}

// RetryOperation asks the provider again now.
func (c *Client) RetryOperation(ctx context.Context, payment, op, operator string) (*Payment, error) {
	return send[Payment](ctx, c, http.MethodPost, operationPath(payment, op, "retry"), "", operatorBody{operator})
}

// ResolveOperation settles an operation whose outcome the provider cannot tell. Evidence says how it is known.
func (c *Client) ResolveOperation(ctx context.Context, payment, op string, succeeded bool, evidence, operator string) (*Payment, error) {
	body := struct {
		Succeeded bool   `json:"succeeded"`
		Evidence  string `json:"evidence"`
		Operator  string `json:"operator,omitempty"`
	}{succeeded, evidence, operator}
	return send[Payment](ctx, c, http.MethodPost, operationPath(payment, op, "resolve"), "", body)
}

// operatorBody names who asks.
type operatorBody struct {
	Operator string `json:"operator,omitempty"`
}

// Sagas lists a page of orders that are on their way, and the cursor of the next page.
func (c *Client) Sagas(ctx context.Context, stuck bool, cursor string, limit int) ([]Saga, string, error) {
	q := cursorQuery(cursor, limit)
	q.Set("stuck", strconv.FormatBool(stuck))
	page, err := get[struct {
		Sagas []Saga `json:"sagas"`
		Next  string `json:"next_cursor"`
	}](ctx, c, "/v1/sagas?"+q.Encode())
	if err != nil {
		return nil, "", err
	}
	return page.Sagas, page.Next, nil
}

// AllSagas lists all orders that are on their way, or only those with a stuck step.
func (c *Client) AllSagas(ctx context.Context, stuck bool) iter.Seq2[Saga, error] {
	return all(func(cursor string) ([]Saga, string, error) { return c.Sagas(ctx, stuck, cursor, pageSize) })
}

// Saga reads an order's saga.
func (c *Client) Saga(ctx context.Context, id string) (*Saga, error) {
	return get[Saga](ctx, c, "/v1/sagas/"+segment(id))
}

func stepPath(id string, seq uint64, act string) string {
	return fmt.Sprintf("/v1/sagas/%s/steps/%d/%s", segment(id), seq, act)
}

// RetryStep sends a stuck step again now.
func (c *Client) RetryStep(ctx context.Context, id string, seq uint64, operator string) (*Saga, error) {
	return send[Saga](ctx, c, http.MethodPost, stepPath(id, seq, "retry"), "", operatorBody{operator})
}

// ResolveStep settles a stuck step by hand: done (it has happened) or skip (give it up). Evidence says how it is known.
func (c *Client) ResolveStep(ctx context.Context, id string, seq uint64, decision, evidence, operator string) (*Saga, error) {
	body := struct {
		Decision string `json:"decision"`
		Evidence string `json:"evidence"`
		Operator string `json:"operator,omitempty"`
	}{decision, evidence, operator}
	return send[Saga](ctx, c, http.MethodPost, stepPath(id, seq, "resolve"), "", body)
}

func keyPath(keyspace, key string) string {
	return "/v1/keyspaces/" + segment(keyspace) + "/keys/" + segment(key)
}

// Get reads a key with its version.
func (c *Client) Get(ctx context.Context, keyspace, key string) (value []byte, version uint64, err error) {
	r, err := c.do(ctx, &request{method: http.MethodGet, path: keyPath(keyspace, key)})
	if err != nil {
		return nil, 0, err
	}
	version, err = strconv.ParseUint(strings.Trim(r.header.Get("Etag"), `"`), 10, 64)
	if err != nil {
		return nil, 0, fmt.Errorf("client: decode version: %w", err)
	}
	return r.body, version, nil
}

// Put writes a key.
func (c *Client) Put(ctx context.Context, keyspace, key string, value []byte) (*Written, error) {
	return c.write(ctx, http.MethodPut, keyspace, key, value, nil)
}

// CompareAndSet writes a key that has the expected version, or for 0 does not exist; otherwise it is a version_mismatch.
func (c *Client) CompareAndSet(ctx context.Context, keyspace, key string, value []byte, expected uint64) (*Written, error) {
	h := http.Header{"If-Match": {`"` + strconv.FormatUint(expected, 10) + `"`}}
	if expected == 0 {
		h = http.Header{"If-None-Match": {"*"}}
	}
	return c.write(ctx, http.MethodPut, keyspace, key, value, h)
}

// Delete deletes a key.
func (c *Client) Delete(ctx context.Context, keyspace, key string) (*Written, error) {
	return c.write(ctx, http.MethodDelete, keyspace, key, nil, nil)
}

func (c *Client) write(ctx context.Context, method, keyspace, key string, value []byte, header http.Header) (*Written, error) {
	r, err := c.do(ctx, &request{method: method, path: keyPath(keyspace, key), key: NewKey(), header: header, body: value, contentType: "application/octet-stream"})
	if err != nil {
		return nil, err
	}
	return decode[Written](r)
}

// Endpoints lists the webhook receivers.
func (c *Client) Endpoints(ctx context.Context) ([]Endpoint, error) {
	page, err := get[struct {
		Endpoints []Endpoint `json:"endpoints"`
	}](ctx, c, "/v1/webhooks")
	if err != nil {
		return nil, err
	}
	return page.Endpoints, nil
}

// CreateEndpoint registers a webhook receiver. The answer holds its secret, once.
func (c *Client) CreateEndpoint(ctx context.Context, target string, types []string) (*Endpoint, error) {
	body := struct {
		URL   string   `json:"url"`
		Types []string `json:"types,omitempty"`
	}{target, types}
	return send[Endpoint](ctx, c, http.MethodPost, "/v1/webhooks", "", body)
}

// EnableEndpoint delivers again to a receiver that was disabled.
func (c *Client) EnableEndpoint(ctx context.Context, id string) (*Endpoint, error) {
	return send[Endpoint](ctx, c, http.MethodPost, "/v1/webhooks/"+segment(id)+"/enable", "", nil)
}

// DeleteEndpoint removes a webhook receiver.
func (c *Client) DeleteEndpoint(ctx context.Context, id string) error {
	_, err := send[struct{}](ctx, c, http.MethodDelete, "/v1/webhooks/"+segment(id), "", nil)
	return err
}

func scan[T any](ctx context.Context, c *Client, what string, shard int, after url.Values, limit int) (*T, error) {
	after.Set("limit", strconv.Itoa(limit))
	return get[T](ctx, c, fmt.Sprintf("/v1/audit/%s/%d?%s", what, shard, after.Encode()))
}

// ScanOrders pages over all orders of a shard, each with its events: protobuf, HistoryScan of api/orderpb, for who folds
// them himself.
func (c *Client) ScanOrders(ctx context.Context, shard int, after string, limit int) ([]byte, error) {
	path := fmt.Sprintf("/v1/audit/orders/%d?%s", shard, url.Values{"after": {after}, "limit": {strconv.Itoa(limit)}}.Encode())
	r, err := c.do(ctx, &request{method: http.MethodGet, path: path})
	if err != nil {
		return nil, err
	}
	return r.body, nil
}

// ScanItems pages over the stock counters of a shard.
func (c *Client) ScanItems(ctx context.Context, shard int, afterSKU, afterLocation string, limit int) ([]Location, bool, error) {
	page, err := scan[struct {
		Items []Location `json:"items"`
		More  bool       `json:"has_more"`
	}](ctx, c, "items", shard, url.Values{"after": {afterSKU}, "after_location": {afterLocation}}, limit)
	if err != nil {
		return nil, false, err
	}
	return page.Items, page.More, nil
}

// ScanHolds pages over the holds of a shard.
func (c *Client) ScanHolds(ctx context.Context, shard int, after string, limit int) ([]Hold, bool, error) {
	page, err := scan[struct {
		Holds []Hold `json:"holds"`
		More  bool   `json:"has_more"`
	}](ctx, c, "holds", shard, url.Values{"after": {after}}, limit)
	if err != nil {
		return nil, false, err
	}
	return page.Holds, page.More, nil
}

// ScanMovements pages over receipts and adjustments of a shard.
func (c *Client) ScanMovements(ctx context.Context, shard int, after uint64, limit int) ([]Movement, bool, error) {
	page, err := scan[struct {
		Movements []Movement `json:"movements"`
		More      bool       `json:"has_more"`
	}](ctx, c, "movements", shard, url.Values{"after": {strconv.FormatUint(after, 10)}}, limit)
	if err != nil {
		return nil, false, err
	}
	return page.Movements, page.More, nil
}
