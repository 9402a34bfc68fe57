package rest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// laneBytes is the size of a lane's buffer: an order of some forty lines. A request that does not fit is net/http's.
	laneBytes = 4 << 10
	// laneRenewal is how old a lane's deadline may get: setting one for every request would cost as much as parsing it.
	laneRenewal = time.Second
	// watchAfter is how long a request is served before the lane looks whether its client is still there. Most are answered by then.
	watchAfter = time.Second
)

// The states of a lane, for Shutdown.
const (
	laneBusy int32 = iota
	laneIdle
	laneClosed
)

// lane serves the requests of one connection that place orders, one at a time on one goroutine, with buffers, request and
// answer used again.
type lane struct {
	conn  net.Conn
	state atomic.Int32

	buf     []byte // of the requests that have been read
	n       int    // how much of buf is used
	size    int    // of the request that is served
	renewed time.Time
	begun   bool // the first bytes have come

	request *http.Request
	body    wholeBody
	values  [len(laneFields)][]string
	header  http.Header // of the answer
	out     []byte
	status  int  // 0 until the answer begins
	closes  bool // the connection ends with the answer

	server   *Server
	cancel   context.CancelFunc // ends the contexts of requests: the client has gone
	watch    *time.Timer
	watching bool
	watched  chan struct{} // a look has ended
	peeked   []byte        // what it has read, at most a byte
}

func newLane(base context.Context, conn net.Conn, s *Server) *lane {
	ctx, cancel := context.WithCancel(base)
	r := &http.Request{
		Method: http.MethodPost, URL: &url.URL{Path: placePath}, RequestURI: placePath, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header, len(laneFields)), RemoteAddr: conn.RemoteAddr().String(),
	}
	c := &lane{
		// A byte more than is read into, for what the watch reads.
		conn: conn, buf: make([]byte, laneBytes+1), request: r.WithContext(ctx), header: make(http.Header, 8),
		server: s, cancel: cancel, watched: make(chan struct{}, 1),
	}
	c.request.Body = &c.body
	c.watch = time.AfterFunc(time.Hour, c.look)
	c.watch.Stop()
	return c
}

// release ends what goes on beside the lane's goroutine.
func (c *lane) release() {
	c.stopWatch()
	c.cancel()
}

// fill reads from the connection: the beginning of a request, for which it waits.
func (c *lane) fill() error {
	if !c.begun { // a new connection has something to say
		if err := c.conn.SetDeadline(time.Now().Add(readHeaderTimeout)); err != nil {
			return err
		}
	} else if err := c.renew(); err != nil {
		return err
	}
	n, err := c.conn.Read(c.buf[c.n:laneBytes])
	if c.n += n; n == 0 {
		if err == nil {
			err = io.ErrNoProgress
		}
		return err
	}
	if !c.begun {
		c.begun = true
		return c.renew()
	}
	return nil // an error comes again
}

// renew sets the deadline for waiting idly, and for writing, which never begins more than watchAfter later without another renewal.
func (c *lane) renew() error {
	now := time.Now()
	if now.Sub(c.renewed) < laneRenewal {
		return nil
	}
	c.renewed = now
	return c.conn.SetDeadline(now.Add(idleTimeout))
}

const (
	placePath = "/v1/orders"
	placeLine = "POST " + placePath + " HTTP/1.1\r\n"
)

// laneFields are the header fields that placing an order reads; all others say nothing to it, or are in hopFields.
var laneFields = [...]string{"Idempotency-Key", "X-Request-Id", "Authorization", "Prefer", "Traceparent"}

// hopFields are about the connection or the body's form. What they ask for, net/http knows.
var hopFields = [...]string{"Transfer-Encoding", "Trailer", "Expect", "Upgrade"}

// parse reads the request at the front of the buffer; false when it is not whole, or not plain: then net/http has to read it.
func (c *lane) parse() bool {
	b := c.buf[:c.n]
	if !bytes.HasPrefix(b, []byte(placeLine)) {
		return false
	}
	for i := range c.values {
		c.values[i] = c.values[i][:0]
	}
	at, length, host := len(placeLine), 0, false
	for {
		end := bytes.IndexByte(b[at:], '\n')
		if end < 1 || b[at+end-1] != '\r' {
			return false
		}
		line := b[at : at+end-1]
		at += end + 1
		if len(line) == 0 {
			break
		}
		name, value, ok := field(line)
		if !ok {
			return false
		}
		switch {
		case isField(name, "Host"):
			if host || !isHost(value) {
				return false
			}
			host = true
			if c.request.Host != string(value) {
				c.request.Host = string(value)
			}
		case isField(name, "Content-Length"):
			n, err := strconv.ParseUint(string(value), 10, 16)
			if err != nil || n == 0 || length > 0 {
				return false
			}
			length = int(n)
		case isField(name, "Connection"):
			if !isField(value, "keep-alive") {
				return false
			}
		default:
			for _, hop := range hopFields {
				if isField(name, hop) {
					return false
				}
			}
			for i, known := range laneFields {
				if isField(name, known) {
					c.values[i] = append(c.values[i], string(value))
				}
			}
		}
	}
	if !host || length == 0 || len(b)-at < length {
		return false
	}
	clear(c.request.Header)
	for i, values := range c.values {
		if len(values) > 0 {
			c.request.Header[laneFields[i]] = values
		}
	}
	c.request.ContentLength = int64(length)
	c.body.whole, c.body.at = b[at:at+length], 0
	c.size = at + length
	return true
}

// field takes a header line apart; false when it is not made of the characters that everybody uses.
func field(line []byte) (name, value []byte, ok bool) {
	colon := bytes.IndexByte(line, ':')
	if colon < 1 {
		return nil, nil, false
	}
	for _, ch := range line[:colon] {
		if ch|0x20 < 'a' || ch|0x20 > 'z' {
			if ch != '-' && ch != '_' && (ch < '0' || ch > '9') {
				return nil, nil, false
			}
		}
	}
	value = line[colon+1:]
	for len(value) > 0 && value[0] == ' ' {
		value = value[1:]
	}
	for len(value) > 0 && value[len(value)-1] == ' ' {
		value = value[:len(value)-1]
	}
	for _, ch := range value {
		if ch < 0x20 || ch > 0x7e {
			return nil, nil, false
		}
	}
	return line[:colon], value, true
}

// isField compares names of fields, which have no case.
func isField(name []byte, known string) bool {
	return len(name) == len(known) && (string(name) == known || strings.EqualFold(string(name), known))
}

func isHost(value []byte) bool {
	for _, ch := range value {
		if (ch|0x20 < 'a' || ch|0x20 > 'z') && (ch < '0' || ch > '9') && ch != '.' && ch != '-' && ch != ':' {
			return false
		}
	}
	return len(value) > 0
}

// wholeBody is a request's body that has been read already.
type wholeBody struct {
	whole []byte
	at    int
}

func (b *wholeBody) Read(p []byte) (int, error) {
	if b.at == len(b.whole) {
		return 0, io.EOF
	}
	n := copy(p, b.whole[b.at:])
	b.at += n
	return n, nil
}

func (b *wholeBody) Close() error { return nil }

// serve has the request answered into the buffer.
func (c *lane) serve(h http.Handler) {
	clear(c.header)
	c.out, c.status = c.out[:0], 0
	c.watching = true
	c.watch.Reset(watchAfter)
	h.ServeHTTP(c, c.request)
	c.stopWatch()
	c.n = copy(c.buf, c.buf[c.size:c.n])
	c.n += copy(c.buf[c.n:], c.peeked)
	c.peeked = c.peeked[:0]
}

// look notices when the client of a long request goes. It runs beside the lane's goroutine, which stops it after the request.
func (c *lane) look() {
	var b [1]byte
	n, err := c.conn.Read(b[:])
	c.peeked = append(c.peeked, b[:n]...)
	if n == 0 && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.cancel()
	}
	c.watched <- struct{}{}
}

// stopWatch returns when nothing reads from the connection any more.
func (c *lane) stopWatch() {
	if !c.watching {
		return
	}
	c.watching = false
	if c.watch.Stop() {
		return
	}
	// Errors are those of a closed connection, on which nobody waits either.
	_ = c.conn.SetReadDeadline(time.Unix(1, 0))
	<-c.watched
	c.renewed = time.Time{}
	_ = c.renew()
}

// Header implements http.ResponseWriter.
func (c *lane) Header() http.Header { return c.header }

// WriteHeader implements http.ResponseWriter: it writes the head of the answer into the buffer.
func (c *lane) WriteHeader(status int) {
	if c.status != 0 {
		return
	}
	c.status = status
	b := append(c.out, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(append(append(b, ' '), http.StatusText(status)...), "\r\n"...)
	for name, values := range c.header {
		for _, v := range values {
			b = append(append(b, name...), ": "...)
			b = append(append(b, oneLine(v)...), "\r\n"...)
		}
	}
	b = append(append(append(b, "Date: "...), c.server.date(time.Now())...), "\r\n"...)
	// Without a length the end of the connection is the end of the answer.
	if _, long := c.header["Content-Length"]; !long || c.server.draining.Load() {
		c.closes = true
		b = append(b, "Connection: close\r\n"...)
	}
	c.out = append(b, "\r\n"...)
}

// Write implements http.ResponseWriter: it adds to the answer in the buffer.
func (c *lane) Write(p []byte) (int, error) {
	if c.status == 0 {
		c.WriteHeader(http.StatusOK)
	}
	c.out = append(c.out, p...)
	return len(p), nil
}

// oneLine keeps a value from becoming two fields. No value that the door writes has a line break.
func oneLine(v string) string {
	if strings.ContainsAny(v, "\r\n") {
		return strings.NewReplacer("\r", " ", "\n", " ").Replace(v)
	}
	return v
}

// dated is the value of Date for a second.
type dated struct {
	second int64
	text   string
}

// date returns the time as the field Date has it; it is made once a second.
func (s *Server) date(now time.Time) string {
	d := s.dates.Load()
	if d == nil || d.second != now.Unix() {
		d = &dated{now.Unix(), now.UTC().Format(http.TimeFormat)}
		s.dates.Store(d)
	}
	return d.text
}

// answer sends the answer.
func (c *lane) answer() error {
	_, err := c.conn.Write(c.out)
	if cap(c.out) > maxKept {
		c.out = nil
	}
	return err
}
