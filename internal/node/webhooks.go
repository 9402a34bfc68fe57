package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"hanse/api/notificationpb"
	"hanse/api/orderpb"
	"hanse/internal/clock"
	"hanse/internal/notification"
	"hanse/internal/order"
	"hanse/internal/reject"
	"hanse/internal/rest"
	"hanse/internal/shard"
)

const (
	// webhookPoll is how often the list of receivers is read, and the feeds when nothing has woken their followers.
	webhookPoll = time.Second
	// webhookTimeout bounds one delivery, webhookDialTimeout the time until there is a connection.
	webhookTimeout     = 15 * time.Second
	webhookDialTimeout = 5 * time.Second
	// webhookReadPause is the shortest time between two looks at the feeds by one receiver: under load events come in pages,
	// and the replicas, which have orders to serve, are asked 20 times a second.
	webhookReadPause = 50 * time.Millisecond
	// webhookReadTimeout bounds one look, and one at the list. A shard between leaders is looked at again after webhookPoll.
	webhookReadTimeout = 2 * time.Second
	// Deliveries are recorded webhookRecordPause after the first, or earlier when there are webhookRecordMany; a cursor that
	// moves over unwanted events only every webhookRecordIdle. What is not recorded is delivered again by the next leader.
	webhookRecordPause = time.Second
	webhookRecordMany  = 256
	webhookRecordIdle  = 10 * time.Second
	// webhookFlush is how long the last record may take when the leadership ends.
	webhookFlush = time.Second
	// webhookDrain is how much of an answer's body is read, so that the connection can be used again.
	webhookDrain = 64 << 10
)

// webhookSource is what webhooks need of the cluster; *Client provides it.
type webhookSource interface {
	Endpoints(ctx context.Context) (rest.Answer[*notificationpb.EndpointList], error)
	readFeed(ctx context.Context, index int, after uint64, limit int) (*orderpb.FeedPage, error)
	// advance records progress. A *reject.Rejection is final.
	advance(ctx context.Context, a *notificationpb.Advance) error
	// published returns a channel that is closed when there are new events on this node.
	published() <-chan struct{}
}

func (c *Client) readFeed(ctx context.Context, index int, after uint64, limit int) (*orderpb.FeedPage, error) {
	q := &orderpb.Query{Body: &orderpb.Query_Feed{Feed: &orderpb.ReadFeed{After: after, Limit: uint32(limit), MaxBytes: feedPageBytes}}}
	a, err := ask[orderpb.FeedPage](ctx, c, shard.NewID(shard.Order, index), q, rest.Consistency{Stale: true})
	return a.Value, err
}

func (c *Client) advance(ctx context.Context, a *notificationpb.Advance) error {
	m := &notificationpb.Command{Body: &notificationpb.Command_Advance{Advance: a}}
	_, result, err := c.propose(ctx, shard.Notification, 0, rest.Request{}, m, 0)
	if err == nil && !result.OK() {
		return rejection(result)
	}
	return err
}

func (c *Client) published() <-chan struct{} { return c.feed.wait() }

// webhooks delivers events to the receivers, on the node that leads the notification shard. It reads the feeds like everyone
// else and so never slows an order. What is sent when is decided by a [notification.Receiver] for each receiver; here are the
// goroutines, the clock and the network. A new leader goes on from the record: what was delivered since is delivered again.
type webhooks struct {
	source  webhookSource
	clock   *clock.Clock
	log     *slog.Logger
	http    *http.Client
	metrics *webhookMetrics

	mu      sync.Mutex
	leading bool
	turn    uint64 // counts the beginnings and ends of leaderships
	changed chan struct{}
}

// newWebhooks prepares the deliveries. With publicOnly they go to public addresses only.
func newWebhooks(source webhookSource, publicOnly bool, c *clock.Clock, log *slog.Logger) *webhooks {
	dialer := &net.Dialer{Timeout: webhookDialTimeout}
	if publicOnly {
		dialer.Control = func(_, address string, _ syscall.RawConn) error { return checkPublic(address) }
	}
	return &webhooks{
		source: source, clock: c, log: log, metrics: newWebhookMetrics(), changed: make(chan struct{}, 1),
		http: &http.Client{
			Timeout: webhookTimeout,
			// No proxy from the environment: it would dial for us, and any address.
			Transport: &http.Transport{
				DialContext: dialer.DialContext, MaxIdleConnsPerHost: notification.Parallel, IdleConnTimeout: time.Minute,
				MaxResponseHeaderBytes: 64 << 10, DisableCompression: true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// lead says whether this node leads the notification shard.
func (w *webhooks) lead(leading bool) {
	w.mu.Lock()
	w.leading = leading
	w.turn++
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *webhooks) leads() (turn uint64, leading bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.turn, w.leading
}

// run delivers, whenever this node leads, until ctx ends.
func (w *webhooks) run(ctx context.Context) error {
	defer w.http.CloseIdleConnections()
	for {
		if turn, leading := w.leads(); leading {
			w.serve(ctx, turn)
		} else {
			select {
			case <-ctx.Done():
			case <-w.changed:
			}
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// serve keeps a follower for every receiver until the leadership or ctx ends.
func (w *webhooks) serve(ctx context.Context, turn uint64) {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	followers := make(map[string]*follower)
	poll := time.NewTicker(webhookPoll)
	defer poll.Stop()
	for {
		for id, f := range followers {
			if f.finished() {
				f.stop()
				delete(followers, id)
			}
		}
		if list, err := w.endpoints(ctx); err == nil { // else the shard is between leaders
			enabled := make(map[string]bool)
			for _, e := range list.Value.Endpoints {
				if enabled[e.Id] = !e.Disabled; e.Disabled || followers[e.Id] != nil {
					continue
				}
				f := w.follower(e)
				fctx, cancel := context.WithCancel(ctx)
				f.stop = cancel
				followers[e.Id] = f
				running.Go(func() { f.run(fctx) })
			}
			for id, f := range followers {
				if !enabled[id] {
					f.stop()
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-w.changed:
			if now, leading := w.leads(); now != turn || !leading {
				return
			}
		case <-poll.C:
		}
	}
}

func (w *webhooks) endpoints(ctx context.Context) (rest.Answer[*notificationpb.EndpointList], error) {
	ctx, cancel := context.WithTimeout(ctx, webhookReadTimeout) // the leadership may be over
	defer cancel()
	return w.source.Endpoints(ctx)
}

// follower carries out what a notification.Receiver decides. Its goroutine owns the receiver; deliveries, reads and records run
// beside it, each bounded in number, and come back through channels with room for all of them.
type follower struct {
	*webhooks
	endpoint *notificationpb.Endpoint
	receiver *notification.Receiver
	stop     func()
	done     chan struct{}

	beside     sync.WaitGroup
	deliveries chan delivered
	pages      chan []feedPage
	records    chan recorded

	unread     bool // there may be events beyond what was read
	reading    bool
	published  <-chan struct{} // closed when there are events since the last look began
	lastRead   time.Time
	lastRecord time.Time
	resting    bool
	ended      bool // deleted, or disabled on record
}

type delivered struct {
	delivery notification.Delivery
	answer   notification.Answer
}

type feedPage struct {
	shard  int
	after  uint64
	events []*orderpb.Event
	last   uint64
	failed bool
}

type recorded struct {
	report *notification.Report
	err    error
}

func (w *webhooks) follower(e *notificationpb.Endpoint) *follower {
	wanted := func(ev *orderpb.Event) bool {
		return len(e.Types) == 0 || slices.Contains(e.Types, order.EventType(ev))
	}
	return &follower{
		webhooks: w, endpoint: e, receiver: notification.NewReceiver(e, wanted), done: make(chan struct{}),
		deliveries: make(chan delivered, notification.Parallel), pages: make(chan []feedPage, 1), records: make(chan recorded, len(e.Cursors)),
		unread: true, lastRecord: time.Now(),
	}
}

func (f *follower) finished() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// run follows the feeds until ctx ends, the receiver is deleted, or it is disabled and that is recorded.
func (f *follower) run(ctx context.Context) {
	defer close(f.done)
	defer func() { f.setResting(false, "") }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for ctx.Err() == nil && !f.ended {
		now := time.Now()
		f.read(ctx, now)
		f.deliver(ctx)
		f.record(ctx, now)
		pause := time.NewTimer(f.pause(now))
		select {
		case <-ctx.Done():
		case d := <-f.deliveries:
			f.delivered(d)
		case pages := <-f.pages:
			f.offer(pages)
		case r := <-f.records:
			f.recorded(r)
		case <-f.published:
			f.unread, f.published = true, nil
		case <-pause.C:
		}
		pause.Stop()
	}
	cancel()
	f.flush(ctx)
}

// pause returns how long nothing needs to be done unless something comes in.
func (f *follower) pause(now time.Time) time.Duration {
	at := now.Add(webhookPoll)
	if wake := f.receiver.Wake(); wake > 0 {
		at = min2(at, now.Add(time.UnixMilli(wake).Sub(f.clock.Now())))
	}
	if f.unread && !f.reading && len(f.wanted()) > 0 {
		at = min2(at, f.lastRead.Add(webhookReadPause))
	}
	at = min2(at, f.lastRecord.Add(f.recordPause()))
	return max(at.Sub(now), time.Millisecond)
}

// read starts a look at those feeds of which the receiver wants more.
func (f *follower) read(ctx context.Context, now time.Time) {
	since := now.Sub(f.lastRead)
	if f.reading || since < webhookReadPause || !f.unread && since < webhookPoll {
		return
	}
	asked := f.wanted()
	if len(asked) == 0 {
		return // it has enough, and what is there stays unread
	}
	f.reading, f.lastRead = true, now
	f.published = f.source.published()              // before reading, so that nothing is missed
	f.unread = len(asked) < len(f.endpoint.Cursors) // the others are wanted later
	f.beside.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, webhookReadTimeout)
		defer cancel()
		for i := range asked {
			p := &asked[i]
			page, err := f.source.readFeed(ctx, p.shard, p.after, feedPageEvents)
			if p.failed = err != nil; !p.failed {
				p.events, p.last = page.Events, page.Last
			}
		}
		f.pages <- asked
	})
}

// wanted lists the feeds of which the receiver wants more, with the position to go on from.
func (f *follower) wanted() (asked []feedPage) {
	for i := range f.endpoint.Cursors {
		if after, ok := f.receiver.Wants(i); ok {
			asked = append(asked, feedPage{shard: i, after: after})
		}
	}
	return asked
}

func (f *follower) offer(pages []feedPage) {
	f.reading = false
	for _, p := range pages {
		if p.failed {
			continue // it is looked at again after webhookPoll
		}
		f.receiver.Offer(p.shard, p.events)
		f.unread = f.unread || p.after+uint64(len(p.events)) < p.last
	}
}

// deliver starts what the receiver may get now.
func (f *follower) deliver(ctx context.Context) {
	for {
		d, ok := f.receiver.Take(f.clock.Now().UnixMilli())
		if !ok {
			return
		}
		f.beside.Go(func() { f.deliveries <- delivered{d, f.attempt(ctx, d)} })
	}
}

func (f *follower) delivered(d delivered) {
	f.receiver.Done(d.delivery, d.answer, f.clock.Now().UnixMilli(), rand.Uint64())
	f.setResting(f.receiver.Resting(), d.answer.Cause)
}

// setResting logs when the receiver begins to rest, with the failure that made it, and when it ends.
func (f *follower) setResting(resting bool, cause string) {
	if f.resting == resting {
		return
	}
	f.resting = resting
	if resting {
		f.metrics.resting.Inc()
		f.log.Warn("webhook receiver does not accept anything, it is tried less often", "endpoint", f.endpoint.Id, "url", f.endpoint.Url, "err", cause)
		return
	}
	f.metrics.resting.Dec()
	f.log.Info("webhook receiver is not waited for any more", "endpoint", f.endpoint.Id)
}

// recordPause is how long after the last record the next one is due.
func (f *follower) recordPause() time.Duration {
	switch n := f.receiver.Unrecorded(); {
	case n >= webhookRecordMany || f.receiver.Disabled() != "":
		return webhookReadPause
	case n > 0:
		return webhookRecordPause
	}
	return webhookRecordIdle
}

// record starts the recording of what has happened, when it is time.
func (f *follower) record(ctx context.Context, now time.Time) {
	if now.Sub(f.lastRecord) < f.recordPause() {
		return
	}
	f.lastRecord = now
	for _, r := range f.receiver.Reports() {
		f.beside.Go(func() { f.records <- recorded{r, f.source.advance(ctx, r.Advance)} })
	}
}

func (f *follower) recorded(r recorded) {
	f.receiver.Recorded(r.report, r.err == nil)
	var refused *reject.Rejection
	switch {
	case r.err == nil && r.report.Advance.Disable:
		f.log.Warn("webhook receiver disabled", "endpoint", f.endpoint.Id, "url", f.endpoint.Url, "cause", r.report.Advance.Reason)
		f.ended = true
	case errors.As(r.err, &refused) && refused.Code == reject.EndpointNotFound:
		f.ended = true
	case r.err != nil && !errors.Is(r.err, context.Canceled):
		f.log.Warn("webhook progress not recorded, it is tried again", "endpoint", f.endpoint.Id, "err", r.err)
	}
}

// flush waits for what is under way and records it, so that the next leader repeats little.
func (f *follower) flush(ctx context.Context) {
	f.beside.Wait()
	close(f.deliveries)
	for d := range f.deliveries {
		f.delivered(d)
	}
	close(f.records)
	for r := range f.records {
		f.recorded(r)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), webhookFlush)
	defer cancel()
	if f.receiver.Unrecorded() == 0 || f.ended {
		return
	}
	for _, r := range f.receiver.Reports() {
		if err := f.source.advance(ctx, r.Advance); err != nil {
			return // the next leader delivers it again
		}
	}
}

// attempt makes one delivery.
func (f *follower) attempt(ctx context.Context, d notification.Delivery) notification.Answer {
	if d.Event == nil {
		page, err := f.source.readFeed(ctx, d.Shard, d.Position-1, 1)
		if err != nil || len(page.Events) == 0 {
			return notification.Answer{Outcome: notification.Skipped}
		}
		d.Event = page.Events[0]
	}
	started := time.Now()
	a, err := f.send(ctx, d.Position, d.Event)
	switch {
	case err == nil:
	case ctx.Err() != nil: // we have hung up
		a.Outcome = notification.Skipped
	default:
		a = notification.Answer{Outcome: notification.Failed, Cause: causeOf(err)}
	}
	f.metrics.observe(a.Outcome, time.Since(started))
	return a
}

// causeOf leaves out what http.Client puts around an error: method and URL.
func causeOf(err error) string {
	var outer *url.Error
	if !errors.As(err, &outer) {
		return err.Error()
	}
	if outer.Timeout() {
		return fmt.Sprintf("no answer within %v", webhookTimeout)
	}
	return outer.Err.Error()
}

// send makes the request; any answer from 200 to 299 accepts the event, redirects are not followed.
func (f *follower) send(ctx context.Context, position uint64, ev *orderpb.Event) (a notification.Answer, err error) {
	body := rest.AppendEvent(nil, position, ev)
	id := ev.OrderId + "." + strconv.FormatUint(ev.Version, 10)
	now := f.clock.Now()
	signature, err := notification.Sign(f.endpoint.Secret, id, now.Unix(), body)
	if err != nil {
		return a, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.endpoint.Url, bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "hanse-webhooks")
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	req.Header.Set("Webhook-Signature", signature)
	resp, err := f.http.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, webhookDrain)) // the status is what counts
	switch code := resp.StatusCode; {
	case code >= 200 && code <= 299:
		return notification.Answer{Outcome: notification.Accepted}, nil
	case code == http.StatusGone:
		a.Outcome = notification.Gone
	case code == http.StatusTooManyRequests, code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		a.Outcome, a.After = notification.Throttled, retryAfterOf(resp.Header.Get("Retry-After"), now)
	default:
		a.Outcome = notification.Failed
	}
	a.Cause = "the receiver answered " + resp.Status
	return a, nil
}

// retryAfterOf reads a Retry-After header: seconds, or a date. It is zero for any other.
func retryAfterOf(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// notPublic are the global addresses that lead elsewhere: shared and reserved networks, and IPv6 that wraps any IPv4.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/96"), netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("100::/64"), netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("fec0::/10"),
}

// checkReceiver refuses a URL whose host is an address that no node would connect to. What a name is resolved to can change, and is looked at then.
func checkReceiver(target string) error {
	u, err := url.Parse(target)
	if err != nil {
		return err
	}
	if isAddress(u.Hostname()) {
		if err := checkPublic(net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443"))); err != nil {
			return &reject.Rejection{Code: reject.InvalidRequest, Field: "/url", Detail: err.Error()}
		}
	}
	return nil
}

func isAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// checkPublic refuses an address, of those that a name has been resolved to, that is not on the public internet.
func checkPublic(address string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("webhook address %q: %w", address, err)
	}
	ip := at.Addr().Unmap()
	in := func(p netip.Prefix) bool { return p.Contains(ip) }
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || slices.ContainsFunc(notPublic, in) {
		return fmt.Errorf("%s is not a public address, and this node delivers to no others", ip)
	}
	return nil
}
