package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// REST is a Client of Hanse's REST door: an order is one request, answered when the order is confirmed.
type REST struct {
	shop   *Shop
	addrs  []string // tried one after the other, from the one that worked last
	at     int
	conn   *conn
	key    []byte // idempotency key without its number
	placed uint64
	head   []byte
	buf    []byte
}

// Order sends an order until it has an answer or the attempts are used up: always under the same key, so that it is placed once.
func (c *REST) Order(ctx context.Context, skus []int) error {
	c.placed++
	c.request(skus)
	var failure error
	for attempt := range maxAttempts {
		if attempt > 0 {
			c.shop.Retries.Add(1)
			pause(ctx, time.Duration(attempt)*retryPause)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		status, body, err := c.send(ctx)
		switch {
		case err != nil:
			failure = err
		case status == 201 && bytes.Contains(body, confirmed):
			return nil
		case status >= 400 && status < 500 && !bytes.Contains(body, retryable):
			return &Refusal{Code: code(body)}
		default:
			failure = fmt.Errorf("status %d: %.200s", status, body)
		}
	}
	return fmt.Errorf("order %s%d: no answer in %d attempts: %w", c.key, c.placed, maxAttempts, failure)
}

const (
	maxAttempts = 50 // with pauses that grow to a second: as long as an election takes, several times over
	retryPause  = 20 * time.Millisecond
)

// What an order says that is confirmed, and a problem that may not be one the next time: an order is still on its way, or the node is busy.
var (
	confirmed = []byte(`"state":"confirmed"`)
	retryable = []byte(`"retryable":true`)
)

// code returns the permanent code of a problem.
func code(body []byte) string {
	var p struct{ Code string }
	if json.Unmarshal(body, &p) != nil || p.Code == "" {
		return fmt.Sprintf("%.100s", body)
	}
	return p.Code
}

// request builds the bytes of the next order's request.
func (c *REST) request(skus []int) {
	body := append(c.head[:0], `{"customer_id":"`...)
	body = append(body, c.key...)
	body = strconv.AppendUint(body, c.placed%customersPerClient, 10)
	body = append(body, `","currency":"EUR","payment":{"method":"pm_card"},"lines":[`...)
	for i, sku := range skus {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, `{"sku":"`...)
		body = append(body, c.shop.SKU(sku)...)
		body = append(body, `","quantity":1,"unit_price":1999}`...)
	}
	body = append(body, `]}`...)
	c.head = body
	b := append(c.buf[:0], "POST /v1/orders HTTP/1.1\r\nHost: hanse\r\nContent-Type: application/json\r\nIdempotency-Key: "...)
	b = append(b, c.key...)
	b = strconv.AppendUint(b, c.placed, 10)
	b = append(b, "\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\n\r\n"...)
	c.buf = append(b, body...)
}

// customersPerClient spreads the orders over the shards, which follow customers.
const customersPerClient = 64

// send makes one attempt, on a new connection to the next node after a failure.
func (c *REST) send(ctx context.Context) (int, []byte, error) {
	if c.conn == nil {
		var err error
		if c.conn, err = dial(ctx, c.addrs[c.at%len(c.addrs)]); err != nil {
			c.at++
			return 0, nil, err
		}
	}
	status, body, err := c.conn.do(c.buf)
	if err != nil {
		c.Close()
		c.at++
	}
	return status, body, err
}

// Close closes the connection; the next order makes a new one.
func (c *REST) Close() {
	if c.conn != nil {
		c.conn.close()
		c.conn = nil
	}
}
