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
	"iter"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Config says where the cluster is and how patient to be. Zero values are defaults.
type Config struct {
	// Addrs are addresses of nodes, host:port or http://host:port; one is enough.
	Addrs []string
	// Pinned keeps the client to Addrs. Otherwise it asks for the nodes before its first request, again every few seconds while it is
	// used, and soon after one did not answer. It uses an address that it was not given once that has answered as the node it is said
	// to be: the addresses that nodes tell of one another may lead nowhere from here.
	Pinned bool
	// RetryFor bounds the repetitions of one request. Default 30 s: several elections. Negative for none.
	RetryFor time.Duration
	// AttemptTimeout bounds one try at one node, besides Wait. Default 10 s, as long as a node works at a request. A
	// node that does not even answer whether it lives is left after 2 s.
	AttemptTimeout time.Duration
	// Wait is how long placing and canceling wait for the outcome, in whole seconds. Default 10 s; negative for not
	// at all: the order comes back as it is then, and goes on.
	Wait time.Duration
	// Connections bounds the idle connections kept to one node. Default 256.
	Connections int
	// Transport carries the requests. Nil for one that is made for this.
	Transport http.RoundTripper
}

// Client is a connection to a cluster. Its methods may be used concurrently.
type Client struct {
	cfg       Config
	transport http.RoundTripper
	wait      []string // the Prefer header of requests that wait
	pool      pool
	probes    probes
}

// probes counts the looks at new nodes, which Close ends.
type probes struct {
	ctx  context.Context
	stop context.CancelFunc

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// start runs probe on its own, unless the client is closed.
func (p *probes) start(probe func(context.Context)) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.running.Go(func() { probe(p.ctx) })
	}
	return !p.closed
}

func (p *probes) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.stop()
	p.running.Wait()
}

// maxAnswer bounds an answer's body: a page of 1,000 orders with 2,000 lines each would be more, but no shop has it.
const maxAnswer = 256 << 20

// New returns a client. It connects at the first request, and starts nothing.
func New(cfg Config) (*Client, error) {
	if len(cfg.Addrs) == 0 {
		return nil, errors.New("client: no address")
	}
	c := &Client{transport: cfg.Transport}
	c.probes.ctx, c.probes.stop = context.WithCancel(context.Background())
	var errs []error
	for _, a := range cfg.Addrs {
		n, err := newNode(a, true)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.pool.nodes = append(c.pool.nodes, n)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	c.pool.next = mathrand.IntN(len(c.pool.nodes)) // so that many clients do not all begin with the same node
	set := func(d *time.Duration, fallback time.Duration) {
		if *d == 0 {
			*d = fallback
		}
	}
	set(&cfg.RetryFor, 30*time.Second)
	set(&cfg.AttemptTimeout, 10*time.Second)
	set(&cfg.Wait, 10*time.Second)
	if cfg.Connections == 0 {
		cfg.Connections = 256
	}
	if cfg.Wait < 0 {
		cfg.Wait = 0
		c.wait = []string{"respond-async"}
	} else {
		c.wait = []string{"wait=" + strconv.Itoa(int(cfg.Wait/time.Second))}
	}
	c.cfg = cfg
	if c.transport == nil {
		dialer := &net.Dialer{
			Timeout: 2 * time.Second,
			// A cut cable says nothing: without probes a waiting request would find out at its attempt's end.
			KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 3 * time.Second, Interval: time.Second, Count: 3},
		}
		c.transport = &http.Transport{
			DialContext: dialer.DialContext, MaxIdleConnsPerHost: cfg.Connections, IdleConnTimeout: time.Minute,
			DisableCompression: true, WriteBufferSize: 16 << 10, ReadBufferSize: 16 << 10,
		}
	}
	return c, nil
}

// Close releases the idle connections. A client that is used afterwards stays with the nodes that it knows.
func (c *Client) Close() {
	c.probes.close()
	if t, ok := c.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// Addrs returns the addresses in use, host:port for plain HTTP. Those of nodes that do not answer now are left out.
func (c *Client) Addrs() []string { return c.pool.addrs() }

// Discover asks a node for all of them and uses those that answer from then on; a client that is not pinned does so by itself.
func (c *Client) Discover(ctx context.Context) error {
	c.pool.due(time.Now())
	v, err := c.Overview(ctx)
	if err != nil {
		return err
	}
	c.learn(v).Wait()
	return nil
}

// learn takes what a node says of the others, and tries those that are new, at most for pulseTime.
func (c *Client) learn(v *Overview) (tried *sync.WaitGroup) {
	tried = new(sync.WaitGroup)
	for _, u := range c.pool.learned(v.Nodes, time.Now()) {
		tried.Add(1)
		if !c.probes.start(func(ctx context.Context) {
			defer tried.Done()
			c.probe(ctx, u.n, u.id, v.Cluster.ID)
		}) {
			tried.Done()
		}
	}
	return tried
}

// probe finds out whether node id of a cluster answers at an address.
func (c *Client) probe(ctx context.Context, n *node, id uint64, cluster string) {
	ctx, cancel := context.WithTimeout(ctx, pulseTime)
	defer cancel()
	r, err := c.roundTrip(ctx, n, &request{method: http.MethodGet, path: nodesPath})
	if err == nil && r.status == http.StatusOK {
		v, err := decode[Overview](r)
		if err == nil && v.Cluster.ID == cluster && slices.ContainsFunc(v.Nodes, func(i Node) bool { return i.Self && i.ID == id }) {
			c.pool.answered(n)
			return
		}
	}
	c.pool.failed(n, time.Now())
}

// request is one request to any node. Everything in it may be repeated: reads, and changes, which have a key.
type request struct {
	method, path string
	key          string // idempotency key; empty for reads
	header       http.Header
	body         []byte
	contentType  string
	waits        bool // for the outcome of a saga
}

// response is the answer to a request.
type response struct {
	status int
	header http.Header
	body   []byte
}

// The pauses between two tries: full jitter below a bound that doubles, so that clients that failed together do not come
// back together. An election takes half a second or so.
const (
	minPause = 10 * time.Millisecond
	maxPause = time.Second
)

// pause draws the pause after so many tries.
func pause(tries int) time.Duration {
	return mathrand.N(min(minPause<<min(tries, 10), maxPause)) + 1
}

// do makes a request until a node gives a final answer.
func (c *Client) do(ctx context.Context, q *request) (*response, error) {
	if !c.cfg.Pinned && c.pool.due(time.Now()) {
		c.look(ctx)
	}
	deadline := time.Now().Add(max(0, c.cfg.RetryFor))
	var busy *node     // that has just said that it cannot answer now
	elsewhere := false // another node is asked because one could not reach the shard
	for tries := 0; ; tries++ {
		n := c.pool.pick(time.Now(), busy)
		busy = nil
		r, err := c.once(ctx, n, q)
		var wait time.Duration
		if err == nil {
			c.pool.answered(n)
			if r.status < 300 {
				return r, nil
			}
			e := decodeError(r)
			if !e.comesBack() {
				return nil, e
			}
			err, wait = e, time.Duration(e.RetryAfterMS)*time.Millisecond+pause(tries)
			if elsewhere = !elsewhere && e.unreached() && c.pool.other(n); elsewhere {
				wait = pause(tries)
			}
			if elsewhere || e.Status != http.StatusConflict && e.Status != http.StatusGatewayTimeout {
				busy = n
			}
		} else if ctx.Err() == nil && !c.pool.failed(n, time.Now()) {
			wait = pause(tries) // nobody else to ask at once
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		}
		if time.Now().Add(wait).After(deadline) {
			if _, answered := errors.AsType[*Error](err); answered {
				return nil, err
			}
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
}

// sleep waits, or returns ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// look learns which nodes there are. What goes wrong with it goes wrong with the request too, which then says so.
func (c *Client) look(ctx context.Context) {
	n := c.pool.pick(time.Now(), nil)
	r, err := c.once(ctx, n, &request{method: http.MethodGet, path: nodesPath})
	if err != nil {
		if ctx.Err() == nil {
			c.pool.failed(n, time.Now())
		}
		return
	}
	c.pool.answered(n)
	if v, err := decode[Overview](r); err == nil && r.status == http.StatusOK {
		c.learn(v)
	}
}

// A request may wait long for its saga, but a node that is stopped or cut off must not be waited for as long: one that
// says nothing for silentFor is asked whether it lives, and has pulseTime to answer.
const (
	silentFor = time.Second
	pulseTime = time.Second
)

var errSilent = errors.New("the node does not answer, not even whether it lives")

// pulseEvery is the time between two such questions: a node that answered one is alive, and busy.
const pulseEvery = 2 * time.Second

// watch looks at a node every pulseEvery until ctx ends, and gives up on it when it does not answer. Any answer will do.
func (c *Client) watch(ctx context.Context, n *node, giveUp context.CancelCauseFunc) {
	for ctx.Err() == nil {
		pulse, cancel := context.WithTimeout(ctx, pulseTime)
		req, err := http.NewRequestWithContext(pulse, http.MethodGet, n.base+"/livez", nil)
		if err == nil {
			var resp *http.Response
			if resp, err = c.transport.RoundTrip(req); err == nil {
				resp.Body.Close()
			}
		}
		cancel()
		if err != nil {
			if ctx.Err() == nil { // else nobody waits for it any more
				giveUp(errSilent)
			}
			return
		}
		if sleep(ctx, pulseEvery) != nil {
			return
		}
	}
}

// once tries one node, and reads the whole answer.
func (c *Client) once(ctx context.Context, n *node, q *request) (*response, error) {
	timeout := c.cfg.AttemptTimeout
	if q.waits {
		timeout += c.cfg.Wait
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ctx, giveUp := context.WithCancelCause(ctx)
	pulse := time.AfterFunc(silentFor, func() { c.watch(ctx, n, giveUp) }) // ends with ctx
	defer pulse.Stop()
	r, err := c.roundTrip(ctx, n, q)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return r, err
}

// roundTrip sends a request to a node and reads the answer.
func (c *Client) roundTrip(ctx context.Context, n *node, q *request) (*response, error) {
	req, err := http.NewRequestWithContext(ctx, q.method, n.base+q.path, bytes.NewReader(q.body))
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
	if q.waits {
		req.Header["Prefer"] = c.wait
	}
	setTraceparent(req)
	// Not through http.Client: there are no redirects and no cookies, only their price.
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := readBody(resp)
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return &response{resp.StatusCode, resp.Header, body}, nil
}

func readBody(resp *http.Response) ([]byte, error) {
	switch n := resp.ContentLength; {
	case n > maxAnswer:
		return nil, fmt.Errorf("%d bytes, more than %d", n, maxAnswer)
	case n >= 0: // one buffer of the right size
		body := make([]byte, n)
		_, err := io.ReadFull(resp.Body, body)
		return body, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("more than %d bytes", maxAnswer)
	}
	return body, err
}

type traceparentKey struct{}

// WithTraceparent returns a context whose requests carry the header traceparent, as W3C Trace Context has it. The nodes put its trace
// into every line that they log about them, and ignore one that is not valid.
func WithTraceparent(ctx context.Context, traceparent string) context.Context {
	return context.WithValue(ctx, traceparentKey{}, traceparent)
}

func setTraceparent(req *http.Request) {
	if v, _ := req.Context().Value(traceparentKey{}).(string); v != "" {
		req.Header["Traceparent"] = []string{v}
	}
}

// NewKey draws an idempotency key.
func NewKey() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: see there
	return hex.EncodeToString(b[:])
}

const maxKey = 255 // bytes of an idempotency key

// keyOf draws the idempotency key of a customer's order. With the customer as its hash tag it is kept where the order is; a customer that cannot be
// written into a key has one without.
func keyOf(customer string) string {
	key := NewKey()
	if len(customer) == 0 || len(customer)+len("{}")+len(key) > maxKey {
		return key
	}
	for _, b := range []byte(customer) {
		if b <= ' ' || b >= 0x7f || b == '{' || b == '}' {
			return key
		}
	}
	return "{" + customer + "}" + key
}

// get reads JSON.
func get[T any](ctx context.Context, c *Client, path string) (*T, error) {
	r, err := c.do(ctx, &request{method: http.MethodGet, path: path})
	if err != nil {
		return nil, err
	}
	return decode[T](r)
}

// send changes something with a JSON body, or none for nil. An empty key is drawn.
func send[T any](ctx context.Context, c *Client, method, path, key string, body any) (*T, error) {
	v, _, err := exchange[T](ctx, c, &request{method: method, path: path, key: key}, body)
	return v, err
}

func exchange[T any](ctx context.Context, c *Client, q *request, body any) (*T, *response, error) {
	if q.key == "" {
		q.key = NewKey()
	}
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

// all turns a call for one page into a sequence of all rows. It ends behind the first error.
func all[T any](page func(cursor string) (rows []T, next string, err error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for cursor := ""; ; {
			rows, next, err := page(cursor)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, row := range rows {
				if !yield(row, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			cursor = next
		}
	}
}
