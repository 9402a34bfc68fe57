package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// PlaceOrder places an order and waits for its outcome. A refused order is an [*Error] that holds it.
// Key is the idempotency key; an empty one is drawn.
func (c *Client) PlaceOrder(ctx context.Context, key string, p *PlaceOrder) (*Order, error) {
	return c.changeOrder(ctx, "/v1/orders", key, p)
}

func (c *Client) changeOrder(ctx context.Context, path, key string, body any) (*Order, error) {
	o, r, err := send[Order](ctx, c, http.MethodPost, path, key, nil, body)
	if err != nil {
		return nil, err
	}
	o.Replayed = r.header.Get("Idempotent-Replayed") == "true"
	return o, nil
}

// Order reads an order; version 0 is as it is now.
func (c *Client) Order(ctx context.Context, id string, version uint64) (*Order, error) {
	path := "/v1/orders/" + url.PathEscape(id)
	if version > 0 {
		path += "?version=" + strconv.FormatUint(version, 10)
	}
	return get[Order](ctx, c, path)
}

// Orders lists a page of a customer's orders, newest first, and the cursor of the next page, empty at the end.
func (c *Client) Orders(ctx context.Context, customer, cursor string, limit int) ([]Order, string, error) {
	q := url.Values{"customer_id": {customer}, "limit": {strconv.Itoa(limit)}}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	page, err := get[struct {
		Orders []Order `json:"orders"`
		Next   string  `json:"next_cursor"`
	}](ctx, c, "/v1/orders?"+q.Encode())
	if err != nil {
		return nil, "", err
	}
	return page.Orders, page.Next, nil
}

func orderPath(id, what string) string { return "/v1/orders/" + url.PathEscape(id) + "/" + what }

// Cancel cancels an order, or what is still open of it.
func (c *Client) Cancel(ctx context.Context, key, id, reason string) (*Order, error) {
	return c.changeOrder(ctx, orderPath(id, "cancel"), key, map[string]string{"reason": reason})
}

// Fulfill ships items, or without any all that is open.
func (c *Client) Fulfill(ctx context.Context, key, id string, items []Item, tracking string) (*Order, error) {
	body := struct {
		Items    []Item `json:"items,omitempty"`
		Tracking string `json:"tracking,omitempty"`
	}{items, tracking}
	return c.changeOrder(ctx, orderPath(id, "fulfillments"), key, body)
}

// Return takes items back.
func (c *Client) Return(ctx context.Context, key, id string, r *ReturnItems) (*Order, error) {
	return c.changeOrder(ctx, orderPath(id, "returns"), key, r)
}

// Refund gives money back without goods.
func (c *Client) Refund(ctx context.Context, key, id string, amount int64, reason string) (*Order, error) {
	body := struct {
		Amount int64  `json:"amount"`
		Reason string `json:"reason,omitempty"`
	}{amount, reason}
	return c.changeOrder(ctx, orderPath(id, "refunds"), key, body)
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

func stockPath(sku, what string) string { return "/v1/stock/" + url.PathEscape(sku) + what }

// Stock reads a SKU at all its locations.
func (c *Client) Stock(ctx context.Context, sku string) (*Stock, error) {
	return get[Stock](ctx, c, stockPath(sku, ""))
}

// Receive books units in.
func (c *Client) Receive(ctx context.Context, key, sku string, change StockChange) (*Location, error) {
	l, _, err := send[Location](ctx, c, http.MethodPost, stockPath(sku, "/receipts"), key, nil, change)
	return l, err
}

// Adjust corrects the count, up or down.
func (c *Client) Adjust(ctx context.Context, key, sku string, change StockChange) (*Location, error) {
	l, _, err := send[Location](ctx, c, http.MethodPost, stockPath(sku, "/adjustments"), key, nil, change)
	return l, err
}

// SetTracking says whether stock of a SKU is counted.
func (c *Client) SetTracking(ctx context.Context, sku string, tracked bool, location string) (*Location, error) {
	body := struct {
		Tracked  bool   `json:"tracked"`
		Location string `json:"location,omitempty"`
	}{tracked, location}
	l, _, err := send[Location](ctx, c, http.MethodPut, stockPath(sku, "/tracking"), "", nil, body)
	return l, err
}

// Payment reads a payment.
func (c *Client) Payment(ctx context.Context, id string) (*Payment, error) {
	return get[Payment](ctx, c, "/v1/payments/"+url.PathEscape(id))
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

// Sagas lists a page of orders that are on their way, and the cursor of the next page.
func (c *Client) Sagas(ctx context.Context, stuck bool, cursor string, limit int) ([]Saga, string, error) {
	q := url.Values{"stuck": {strconv.FormatBool(stuck)}, "limit": {strconv.Itoa(limit)}}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	page, err := get[struct {
		Sagas []Saga `json:"sagas"`
		Next  string `json:"next_cursor"`
	}](ctx, c, "/v1/sagas?"+q.Encode())
	if err != nil {
		return nil, "", err
	}
	return page.Sagas, page.Next, nil
}

// Saga reads an order's saga.
func (c *Client) Saga(ctx context.Context, id string) (*Saga, error) {
	return get[Saga](ctx, c, "/v1/sagas/"+url.PathEscape(id))
}

// RetryStep sends a stuck step again now.
func (c *Client) RetryStep(ctx context.Context, id string, seq uint64, operator string) (*Saga, error) {
	s, _, err := send[Saga](ctx, c, http.MethodPost, fmt.Sprintf("/v1/sagas/%s/steps/%d/retry", url.PathEscape(id), seq), "", nil,
		map[string]string{"operator": operator})
	return s, err
}

// ResolveStep settles a stuck step by hand: done or skip, with what shows it.
func (c *Client) ResolveStep(ctx context.Context, id string, seq uint64, decision, evidence, operator string) (*Saga, error) {
	s, _, err := send[Saga](ctx, c, http.MethodPost, fmt.Sprintf("/v1/sagas/%s/steps/%d/resolve", url.PathEscape(id), seq), "", nil,
		map[string]string{"decision": decision, "evidence": evidence, "operator": operator})
	return s, err
}

// keyPath keeps the slashes of a key.
func keyPath(keyspace, key string) string {
	parts := strings.Split(key, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return "/v1/keyspaces/" + url.PathEscape(keyspace) + "/keys/" + strings.Join(parts, "/")
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

// Nodes lists the nodes as the answering one sees them.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	page, err := get[struct {
		Nodes []Node `json:"nodes"`
	}](ctx, c, "/v1/nodes")
	if err != nil {
		return nil, err
	}
	return page.Nodes, nil
}

// Shards lists the shards at the answering node.
func (c *Client) Shards(ctx context.Context) (*Shards, error) {
	return get[Shards](ctx, c, "/v1/shards")
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
	e, _, err := send[Endpoint](ctx, c, http.MethodPost, "/v1/webhooks", "", nil, body)
	return e, err
}

// DeleteEndpoint removes a webhook receiver.
func (c *Client) DeleteEndpoint(ctx context.Context, id string) error {
	_, _, err := send[struct{}](ctx, c, http.MethodDelete, "/v1/webhooks/"+url.PathEscape(id), "", nil, nil)
	return err
}

func scan[T any](ctx context.Context, c *Client, what string, shard int, after url.Values, limit int) (*T, error) {
	after.Set("limit", strconv.Itoa(limit))
	return get[T](ctx, c, fmt.Sprintf("/v1/audit/%s/%d?%s", what, shard, after.Encode()))
}

// ScanOrders pages over all orders of a shard, each compared with the fold of its events.
func (c *Client) ScanOrders(ctx context.Context, shard int, after string, limit int) ([]ScannedOrder, bool, error) {
	page, err := scan[struct {
		Orders []ScannedOrder `json:"orders"`
		More   bool           `json:"has_more"`
	}](ctx, c, "orders", shard, url.Values{"after": {after}}, limit)
	if err != nil {
		return nil, false, err
	}
	return page.Orders, page.More, nil
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

// Follow calls fn with every event from a position on ("" for from now on, "start" for all), with the position behind
// it, and comes back by itself after a broken stream, until ctx ends or fn fails.
func (c *Client) Follow(ctx context.Context, after, types string, fn func(position string, e Event) error) error {
	for {
		err := c.followOnce(ctx, &after, types, fn)
		var stopped *stopError
		var refused *Error
		switch {
		case errors.As(err, &stopped):
			return stopped.err
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &refused) && !refused.Retryable:
			return refused
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(jitter(time.Second)):
		}
	}
}

// stopError is fn's own error.
type stopError struct{ err error }

func (e *stopError) Error() string { return e.err.Error() }

func (c *Client) followOnce(ctx context.Context, after *string, types string, fn func(string, Event) error) error {
	addr := c.pick()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/v1/events?"+url.Values{"types": {types}}.Encode(), nil)
	if err != nil {
		return err
	}
	if *after != "" {
		req.Header.Set("Last-Event-ID", *after)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.markDown(addr)
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err != nil {
			return err
		}
		return decodeError(&response{resp.StatusCode, resp.Header, body})
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 16<<20)
	id, data := "", ""
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "id: "):
			id = line[len("id: "):]
		case strings.HasPrefix(line, "data: "):
			data = line[len("data: "):]
		case line == "":
			if data != "" {
				var e Event
				if err := json.Unmarshal([]byte(data), &e); err != nil {
					return &stopError{fmt.Errorf("client: decode event: %w", err)}
				}
				if err := fn(id, e); err != nil {
					return &stopError{err}
				}
			}
			if id != "" {
				*after = id
			}
			data = ""
		}
	}
	return lines.Err()
}
