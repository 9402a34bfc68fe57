package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"hanse/api/notificationpb"
	"hanse/api/orderpb"
	"hanse/internal/notification"
	"hanse/internal/order"
	"hanse/internal/rest"
	"hanse/internal/shard"
)

const (
	// webhookPoll is how often the receivers are looked at when no event wakes the loop.
	webhookPoll = time.Second
	// webhookTimeout bounds one delivery, webhookParallel how many go to one receiver at once.
	webhookTimeout  = 15 * time.Second
	webhookParallel = 8
	// webhookPage is how many events a receiver is sent before its cursor is stored.
	webhookPage = 256
)

// webhooks delivers events to the receivers, on the node that leads the notification shard. It reads the feeds like everyone
// else and so never slows an order. A new leader goes on from the stored cursors: what was delivered since is delivered again.
type webhooks struct {
	client *Client
	log    *slog.Logger
	http   *http.Client

	mu      sync.Mutex
	leading bool
	changed chan struct{}
}

func newWebhooks(c *Client, log *slog.Logger) *webhooks {
	return &webhooks{client: c, log: log, changed: make(chan struct{}, 1), http: &http.Client{
		Timeout:       webhookTimeout,
		Transport:     &http.Transport{MaxIdleConnsPerHost: webhookParallel, MaxConnsPerHost: 2 * webhookParallel, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// lead says whether this node leads the notification shard.
func (w *webhooks) lead(leading bool) {
	w.mu.Lock()
	w.leading = leading
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *webhooks) leads() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.leading
}

// run delivers until ctx ends.
func (w *webhooks) run(ctx context.Context) error {
	poll := time.NewTicker(webhookPoll)
	defer poll.Stop()
	for {
		published := w.client.feed.wait()
		if w.leads() {
			w.round(ctx)
		} else {
			published = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-published:
		case <-w.changed:
		case <-poll.C:
		}
	}
}

// round brings every receiver as far as it goes.
func (w *webhooks) round(ctx context.Context) {
	list, err := w.client.Endpoints(ctx)
	if err != nil {
		return // between leaders: the next round comes
	}
	var wg sync.WaitGroup
	for _, e := range list.Value.Endpoints {
		if e.Disabled {
			continue
		}
		for i := range e.Cursors {
			wg.Go(func() { w.deliverShard(ctx, e, i) })
		}
	}
	wg.Wait()
}

// deliverShard sends a receiver what it has not got of one order shard's feed: what is parked and due, then one page.
func (w *webhooks) deliverShard(ctx context.Context, e *notificationpb.Endpoint, index int) {
	a := &notificationpb.Advance{Id: e.Id, Shard: uint32(index)}
	parked := make(map[string]bool) // orders of which something is parked: later events wait behind it
	now := time.Now().UnixMilli()
	for _, p := range e.Parked {
		if int(p.Shard) != index {
			continue
		}
		if p.NextTry > now || parked[p.OrderId] {
			parked[p.OrderId] = true
			continue
		}
		page, err := w.client.feedPage(ctx, index, p.Position-1, rest.Consistency{})
		if err != nil || len(page.Events) == 0 {
			return
		}
		if failure := w.send(ctx, e, p.Position, page.Events[0]); failure == nil {
			a.Unpark = append(a.Unpark, p.Position)
			a.Delivered++
		} else if !w.park(a, p, failure) {
			parked[p.OrderId] = true
		}
	}
	if page, err := w.client.feedPage(ctx, index, e.Cursors[index], rest.Consistency{Stale: true}); err == nil {
		w.deliverPage(ctx, e, a, page, parked)
	}
	if ctx.Err() != nil || a.Cursor == 0 && len(a.Unpark) == 0 && len(a.Park) == 0 && !a.Disable {
		return
	}
	m := &notificationpb.Command{Body: &notificationpb.Command_Advance{Advance: a}}
	if _, _, err := w.client.propose(ctx, shard.Notification, 0, rest.Request{}, m, 0); err != nil {
		w.log.Warn("webhook progress not stored", "endpoint", e.Id, "err", err)
	}
}

// deliverPage sends the events of a page, those of one order one after the other.
func (w *webhooks) deliverPage(ctx context.Context, e *notificationpb.Endpoint, a *notificationpb.Advance, page *orderpb.FeedPage, parked map[string]bool) {
	events := page.Events[:min(len(page.Events), webhookPage)]
	if len(events) == 0 {
		return
	}
	byOrder := make(map[string][]int)
	var orders []string
	for i, ev := range events {
		if len(e.Types) > 0 && !slices.Contains(e.Types, order.EventType(ev)) {
			continue
		}
		if len(byOrder[ev.OrderId]) == 0 {
			orders = append(orders, ev.OrderId)
		}
		byOrder[ev.OrderId] = append(byOrder[ev.OrderId], i)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	room := make(chan struct{}, webhookParallel)
	for _, id := range orders {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			mu.Lock()
			behind := parked[id]
			mu.Unlock()
			for _, i := range byOrder[id] {
				p := &notificationpb.Parked{Shard: a.Shard, Position: page.First + uint64(i), OrderId: id}
				var failure error
				if behind {
					failure = errBehind
				} else {
					failure = w.send(ctx, e, p.Position, events[i])
				}
				mu.Lock()
				if failure == nil {
					a.Delivered++
				} else {
					w.park(a, p, failure)
					behind = true
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	a.Cursor = page.First + uint64(len(events)) - 1
}

// errBehind is why an event waits although it was not tried.
var errBehind = errors.New("waits behind an earlier event of the same order")

// errGone is a receiver's word that it wants nothing any more.
var errGone = errors.New("the receiver answered 410 Gone")

// park keeps a failed delivery for later. It reports whether the receiver is disabled instead.
func (w *webhooks) park(a *notificationpb.Advance, p *notificationpb.Parked, failure error) (disabled bool) {
	p = p.CloneVT()
	if !errors.Is(failure, errBehind) {
		p.Attempts++
	}
	p.Error = failure.Error()
	pause, ok := notification.Next(max(int(p.Attempts), 1), rand.Uint64())
	if errors.Is(failure, errGone) || !ok {
		a.Disable, a.Reason = true, fmt.Sprintf("event %d of order %s was tried %d times: %v", p.Position, p.OrderId, p.Attempts, failure)
	}
	p.NextTry = time.Now().Add(pause).UnixMilli()
	a.Park = append(a.Park, p)
	return a.Disable
}

// send makes one delivery; any answer from 200 to 299 accepts it.
func (w *webhooks) send(ctx context.Context, e *notificationpb.Endpoint, position uint64, ev *orderpb.Event) error {
	body := rest.AppendEvent(nil, position, ev)
	id := ev.OrderId + "." + strconv.FormatUint(ev.Version, 10)
	now := time.Now().Unix()
	signature, err := notification.Sign(e.Secret, id, now, body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.Url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "hanse-webhooks")
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(now, 10))
	req.Header.Set("Webhook-Signature", signature)
	resp, err := w.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	switch {
	case resp.StatusCode == http.StatusGone:
		return errGone
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return fmt.Errorf("the receiver answered %s", resp.Status)
	}
	return nil
}
