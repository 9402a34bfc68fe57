package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// streams answers each request for events with the next body, and keeps where each went on.
type streams struct {
	bodies []string
	after  []string
	types  []string
}

func (s *streams) serve(r *http.Request) (*http.Response, error) {
	after := r.Header.Get("Last-Event-ID")
	if r.URL.Query().Has("after") {
		after += "after=" + r.URL.Query().Get("after")
	}
	s.after = append(s.after, after)
	s.types = append(s.types, r.URL.Query().Get("types"))
	i := len(s.after) - 1
	if i >= len(s.bodies) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	resp, err := answer(200, s.bodies[i])
	resp.ContentLength = -1
	return resp, err
}

func TestFollowGoesOnBehindTheLastEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &streams{bodies: []string{
			": following\nid: 0:5,1:7\n\n",
			"id: 0:6,1:7\nevent: order.placed\ndata: {\"id\":\"o1.1\",\"type\":\"order.placed\"}\n\n: heartbeat\n\nid: 0:8,1:7\nevent: order.confirmed\ndata: {\"id\":\"o1.2\",",
			"id: 0:8,1:7\ndata: {\"id\":\"o1.2\",\ndata: \"type\":\"order.confirmed\"}\n\nid: 0:8,1:9\n\n",
			"data: {\"id\":\"o2.1\"}\nid:0:8,1:10\n\n",
		}}
		n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": s.serve, "b:1": dead}}
		c := pinned(t, n, nil, "a:1", "b:1")
		ctx, cancel := context.WithCancel(t.Context())
		var got []string
		for f, err := range c.Follow(ctx, FollowOptions{Types: []string{"order.placed", "order.confirmed"}}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, f.Event.ID+"@"+f.Position)
			if len(got) == 3 {
				break
			}
		}
		cancel()
		if got, want := strings.Join(got, " "), "o1.1@0:6,1:7 o1.2@0:8,1:7 o2.1@0:8,1:10"; got != want {
			t.Errorf("events %s, want %s", got, want)
		}
		if got, want := strings.Join(s.after, " | "), " | 0:5,1:7 | 0:6,1:7 | 0:8,1:9"; got != want {
			t.Errorf("went on behind %q, want %q", got, want)
		}
		if s.types[0] != "order.placed,order.confirmed" {
			t.Errorf("types %q", s.types[0])
		}
	})
}

func TestFollowEndsWithWhatIsRefused(t *testing.T) {
	n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": problem(400, "invalid_request", false, 0)}}
	rows := 0
	for _, err := range pinned(t, n, nil, "a:1").Follow(t.Context(), FollowOptions{After: "nonsense"}) {
		rows++
		if e, ok := errors.AsType[*Error](err); !ok || e.Code != "invalid_request" {
			t.Errorf("got %v", err)
		}
	}
	if rows != 1 || len(n.asked) != 1 {
		t.Errorf("%d rows after %d requests, want one of each", rows, len(n.asked))
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": dead, "b:1": problem(503, "unavailable", true, 100)}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		rows := 0
		for _, err := range pinned(t, n, nil, "a:1", "b:1").Follow(ctx, FollowOptions{}) {
			rows++
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want the context's end", err)
			}
		}
		if rows != 1 || len(n.asked) < 30 || len(n.asked) > 600 {
			t.Errorf("%d rows, %d requests in a minute", rows, len(n.asked))
		}
	})
}

// silent is a stream that says something and then nothing, until its request ends.
type silent struct {
	ctx  context.Context
	said io.Reader
}

func (s *silent) Read(p []byte) (int, error) {
	if n, err := s.said.Read(p); err == nil {
		return n, nil
	}
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

func (s *silent) Close() error { return nil }

func TestFollowLeavesASilentStream(t *testing.T) {
	for heartbeat, want := range map[string]time.Duration{"1500": 4500 * time.Millisecond, "": silence, "never": silence, "0": silence} {
		t.Run("heartbeat "+heartbeat, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				s := &streams{bodies: []string{"", "id: 2\ndata: {\"id\":\"second\"}\n\n"}}
				n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){
					"a:1": func(r *http.Request) (*http.Response, error) {
						resp, err := answer(200, "", "Hanse-Heartbeat", heartbeat)
						resp.ContentLength, resp.Body = -1, &silent{r.Context(), strings.NewReader("id: 1\ndata: {\"id\":\"first\"}\n\n")}
						s.after = append(s.after, "")
						return resp, err
					},
					"b:1": s.serve,
				}}
				var got []string
				for f, err := range pinned(t, n, nil, "a:1", "b:1").Follow(t.Context(), FollowOptions{}) {
					if err != nil {
						t.Fatal(err)
					}
					if got = append(got, f.Event.ID); len(got) == 2 {
						break
					}
				}
				if took := time.Since(began); took != want {
					t.Errorf("the second event came after %v, want %v", took, want)
				}
				if s.after[1] != "1" {
					t.Errorf("went on behind %q, want 1", s.after[1])
				}
			})
		})
	}
}

// A node that is stopped takes connections and says nothing, not even that it streams.
func TestFollowLeavesANodeThatIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		s := &streams{bodies: []string{"id: 1\ndata: {\"id\":\"first\"}\n\n"}}
		n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": hangs, "b:1": s.serve}}
		for _, err := range pinned(t, n, nil, "a:1", "b:1").Follow(t.Context(), FollowOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		if took := time.Since(began); took != silentFor+pulseTime {
			t.Errorf("the event came after %v, want %v", took, silentFor+pulseTime)
		}
	})
}

// The time that the caller takes for an event is not the node's silence, and neither is a long quiet with heartbeats.
func TestFollowStaysWithANodeThatLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": func(q *http.Request) (*http.Response, error) {
			r, w := io.Pipe()
			context.AfterFunc(q.Context(), func() { _ = r.CloseWithError(q.Context().Err()) })
			go func() {
				say := func(text string) { _, _ = io.WriteString(w, text) }
				say("id: 1\ndata: {\"id\":\"first\"}\n\n")
				for range 100 {
					time.Sleep(1500 * time.Millisecond)
					say(": heartbeat\n\n")
				}
				say("id: 2\ndata: {\"id\":\"second\"}\n\n")
			}()
			resp, err := answer(200, "", "Hanse-Heartbeat", "1500")
			resp.ContentLength, resp.Body = -1, r
			return resp, err
		}}}
		var got []string
		for f, err := range pinned(t, n, nil, "a:1").Follow(t.Context(), FollowOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, f.Event.ID); len(got) == 2 {
				break
			}
			time.Sleep(time.Minute)
		}
		if len(n.asked) != 1 {
			t.Errorf("%d streams, want one", len(n.asked))
		}
	})
}

// FuzzEventReader: whatever a stream says, reading it ends, and what was read is no more than what was said.
func FuzzEventReader(f *testing.F) {
	f.Add([]byte("id: 1\ndata: a\ndata: b\n\n: comment\n\nid: 2\n\ndata: cut"))
	f.Add([]byte("\n\n\ndata\nid\n\r\n:\n\n"))
	f.Add([]byte("data: x\r\n\r\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		e := newEventReader(bytes.NewReader(stream), func() {})
		read := 0
		for {
			id, data, err := e.next()
			if err != nil {
				break
			}
			if bytes.ContainsAny([]byte(id), "\n") {
				t.Errorf("id %q holds a line end", id)
			}
			read += len(data)
		}
		if read > len(stream) {
			t.Errorf("read %d bytes of data from a stream of %d", read, len(stream))
		}
	})
}
