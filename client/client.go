package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Config says where the cluster is.
type Config struct {
	// Addrs are host:port addresses of nodes; one is enough, the others are learned from it.
	Addrs []string
	// RetryFor bounds the repetitions of one request. Default 30 s: several elections. Negative for none.
	RetryFor time.Duration
	// Connections bounds the idle connections to one node. Default 64.
	Connections int
}

// Client is a connection to a cluster. Its methods may be used concurrently.
type Client struct {
	cfg  Config
	http *http.Client

	mu    sync.Mutex
	addrs []string
	next  int
	down  map[string]time.Time // until when an address is not tried first
}

// downTime is how long a node that did not answer is passed over.
const downTime = time.Second

// New returns a client. It connects at the first request.
func New(cfg Config) (*Client, error) {
	if len(cfg.Addrs) == 0 {
		return nil, errors.New("client: no address")
	}
	for _, a := range cfg.Addrs {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return nil, fmt.Errorf("client: address %q: want host:port", a)
		}
	}
	if cfg.RetryFor == 0 {
		cfg.RetryFor = 30 * time.Second
	}
	if cfg.Connections == 0 {
		cfg.Connections = 64
	}
	return &Client{
		cfg: cfg, addrs: append([]string(nil), cfg.Addrs...), down: make(map[string]time.Time),
		http: &http.Client{Transport: &http.Transport{
			MaxIdleConns: 0, MaxIdleConnsPerHost: cfg.Connections, IdleConnTimeout: time.Minute,
			DialContext:        (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
			DisableCompression: true, WriteBufferSize: 16 << 10, ReadBufferSize: 16 << 10,
		}},
	}, nil
}

// Close releases the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Addrs returns the addresses in use.
func (c *Client) Addrs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.addrs...)
}

// Discover asks a node for the others and uses all of them from then on.
func (c *Client) Discover(ctx context.Context) error {
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range nodes {
		known := false
		for _, a := range c.addrs {
			known = known || a == n.REST
		}
		if !known && n.REST != "" {
			c.addrs = append(c.addrs, n.REST)
		}
	}
	return nil
}

// pick returns the address to try next: in turn, those that are down last.
func (c *Client) pick() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for range c.addrs {
		a := c.addrs[c.next%len(c.addrs)]
		c.next++
		if c.down[a].Before(now) {
			return a
		}
	}
	c.next++
	return c.addrs[c.next%len(c.addrs)]
}

func (c *Client) markDown(addr string) {
	c.mu.Lock()
	c.down[addr] = time.Now().Add(downTime)
	c.mu.Unlock()
}

// Error is the cluster's refusal, or its word that it cannot answer now.
type Error struct {
	// Code is permanent; docs/errors.md lists all with their remedies.
	Code   string `json:"code"`
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	// Errors name the offending parts of the request.
	Errors    []Violation `json:"errors"`
	RequestID string      `json:"request_id"`
	// Retryable says that the same request with the same key may succeed later.
	Retryable    bool   `json:"retryable"`
	RetryAfterMS int64  `json:"retry_after_ms"`
	OrderID      string `json:"order_id"`
	// Order is the refused order, when the request was to place one.
	Order *Order `json:"order"`
}

// Violation is an offending part of a request.
type Violation struct {
	Pointer   string `json:"pointer"`
	Parameter string `json:"parameter"`
	Code      string `json:"code"`
	Detail    string `json:"detail"`
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Code, e.Detail)
	for _, v := range e.Errors {
		if v.Detail != e.Detail || v.Pointer != "" {
			fmt.Fprintf(&b, " [%s%s]", v.Pointer, v.Parameter)
		}
	}
	return b.String()
}

// ErrUnavailable says that no node answered in time. A change may have been carried out; repeat it with the same key.
var ErrUnavailable = errors.New("client: no node answered")

// request is one request to any node.
type request struct {
	method, path string
	key          string // idempotency key; empty for none
	header       http.Header
	body         []byte
	contentType  string
}

// response is the answer to a request.
type response struct {
	status int
	header http.Header
	body   []byte
}

// do makes a request until a node gives a final answer. Reads and requests with a key may be repeated whatever
// happened to them; others only when nothing was sent.
func (c *Client) do(ctx context.Context, q *request) (*response, error) {
	deadline := time.Now().Add(c.cfg.RetryFor)
	repeatable := q.key != "" || q.method == http.MethodGet
	var last error
	for attempt := 0; ; attempt++ {
		addr := c.pick()
		r, err := c.once(ctx, addr, q)
		pause := time.Duration(0)
		switch {
		case err == nil && (r.status == http.StatusTooManyRequests || r.status == http.StatusServiceUnavailable ||
			r.status == http.StatusGatewayTimeout || r.status == http.StatusConflict && r.header.Get("Retry-After") != ""):
			e := decodeError(r)
			last = e
			if !e.Retryable || !repeatable && r.status == http.StatusGatewayTimeout {
				return nil, e
			}
			pause = min(time.Duration(e.RetryAfterMS)*time.Millisecond, 500*time.Millisecond)
		case err == nil && r.status >= 400:
			return nil, decodeError(r)
		case err == nil:
			return r, nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		default:
			c.markDown(addr)
			last = err
			var op *net.OpError
			notSent := errors.As(err, &op) && op.Op == "dial"
			if !repeatable && !notSent {
				return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
			}
		}
		pause = max(pause, jitter(min(10*time.Millisecond<<min(attempt, 6), 500*time.Millisecond)))
		if c.cfg.RetryFor < 0 || time.Now().Add(pause).After(deadline) {
			if e := (*Error)(nil); errors.As(last, &e) {
				return nil, e
			}
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, last)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// jitter draws from zero to d, so that clients that failed together do not come back together.
func jitter(d time.Duration) time.Duration {
	n, err := rand.Int(rand.Reader, big.NewInt(int64(d)+1))
	if err != nil {
		return d
	}
	return time.Duration(n.Int64())
}

func (c *Client) once(ctx context.Context, addr string, q *request) (*response, error) {
	req, err := http.NewRequestWithContext(ctx, q.method, "http://"+addr+q.path, bytes.NewReader(q.body))
	if err != nil {
		return nil, err
	}
	for name, values := range q.header {
		req.Header[name] = values
	}
	if q.key != "" {
		req.Header["Idempotency-Key"] = []string{q.key}
	}
	if q.contentType != "" {
		req.Header["Content-Type"] = []string{q.contentType}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return &response{resp.StatusCode, resp.Header, body}, nil
}

func decodeError(r *response) *Error {
	e := new(Error)
	if err := json.Unmarshal(r.body, e); err != nil || e.Code == "" {
		e = &Error{Code: "http_" + strconv.Itoa(r.status), Status: r.status, Detail: strings.TrimSpace(string(r.body[:min(len(r.body), 300)])), Retryable: r.status >= 500}
	}
	return e
}

// NewKey draws an idempotency key.
func NewKey() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic("client: no random numbers: " + err.Error()) // crypto/rand never fails on supported systems
	}
	return hex.EncodeToString(b[:])
}

// get reads JSON.
func get[T any](ctx context.Context, c *Client, path string) (*T, error) {
	r, err := c.do(ctx, &request{method: http.MethodGet, path: path})
	if err != nil {
		return nil, err
	}
	return decode[T](r)
}

// send changes something. An empty key is drawn.
func send[T any](ctx context.Context, c *Client, method, path, key string, header http.Header, body any) (*T, *response, error) {
	if key == "" {
		key = NewKey()
	}
	q := &request{method: method, path: path, key: key, header: header}
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, nil, fmt.Errorf("client: encode request: %w", err)
		}
		q.body, q.contentType = data, "application/json"
	}
	r, err := c.do(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	v, err := decode[T](r)
	return v, r, err
}

func decode[T any](r *response) (*T, error) {
	v := new(T)
	if len(r.body) == 0 {
		return v, nil
	}
	if err := json.Unmarshal(r.body, v); err != nil {
		return nil, fmt.Errorf("client: decode answer: %w", err)
	}
	return v, nil
}
