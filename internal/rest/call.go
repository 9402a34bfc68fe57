package rest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"hanse/internal/reject"
	"hanse/internal/shard"
)

// call is one request on its way through a handler. Calls and their buffers are reused: what outlives
// the handler is copied.
type call struct {
	s         *server
	w         http.ResponseWriter
	r         *http.Request
	ctx       context.Context
	rt        *route
	route     string // its label
	requestID string
	trace     string
	orderID   string // for the access log
	shard     string // for the access log
	status    int    // 0 until the answer is sent
	expected  bool   // the body has its deadline
	in, out   []byte
}

// maxKept bounds the buffers that are kept for the next call: one large order must not pin its memory.
const maxKept = 64 << 10

func (c *call) reset() {
	in, out := c.in, c.out
	if cap(in) > maxKept {
		in = nil
	}
	if cap(out) > maxKept {
		out = nil
	}
	*c = call{in: in[:0], out: out[:0]}
}

// buffer returns the empty buffer for the answer; send takes it back.
func (c *call) buffer() []byte { return c.out[:0] }

// read returns the body, which is valid until the handler returns.
func (c *call) read() ([]byte, error) {
	limit := c.s.cfg.MaxBodyBytes
	tooLarge := &http.MaxBytesError{Limit: limit}
	if c.r.ContentLength > limit {
		return nil, tooLarge
	}
	if c.r.ContentLength == 0 || c.r.Body == nil || c.r.Body == http.NoBody {
		return nil, nil
	}
	if b, ok := c.r.Body.(*wholeBody); ok {
		return b.whole, nil
	}
	c.expect()
	// Room for what is announced and a byte to see its end by, within bounds: who only announces gets no memory.
	buf := slices.Grow(c.in[:0], int(min(max(c.r.ContentLength, 511), 16<<10))+1)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := c.r.Body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		c.in = buf
		switch {
		case int64(len(buf)) > limit:
			return nil, tooLarge
		case err == io.EOF:
			_ = http.NewResponseController(c.w).SetReadDeadline(time.Time{})
			return buf, nil
		case err != nil:
			return nil, refuse(reject.InvalidRequest, "", "the body could not be read to its end: "+err.Error())
		}
	}
}

// expect gives the client RequestTimeout to send the body, from the first time on. Recorders in tests have no deadline to set.
func (c *call) expect() {
	if !c.expected {
		c.expected = true
		_ = http.NewResponseController(c.w).SetReadDeadline(time.Now().Add(c.s.cfg.RequestTimeout))
	}
}

// maxIgnored bounds what is read of a body that is not wanted.
const maxIgnored = 64 << 20

// ignore reads what is left of a body that is refused. Most clients read the answer when they have sent all; if the connection were closed
// before, they would not see why. A client that asks first (Expect: 100-continue) has not begun to send.
func (c *call) ignore() {
	if _, read := c.r.Body.(*wholeBody); read || c.r.ContentLength == 0 || c.r.Body == nil || len(c.r.Header["Expect"]) > 0 {
		return
	}
	c.expect()
	_, _ = io.CopyN(io.Discard, c.r.Body, maxIgnored) // whoever sends more, or slowly, is cut off
}

// header returns the value of a header that may occur once; repeats of the same value are harmless.
func (c *call) header(name string) (string, error) {
	values := c.r.Header[name]
	if len(values) == 0 {
		return "", nil
	}
	for _, v := range values[1:] {
		if v != values[0] {
			return "", refuse(reject.InvalidRequest, name, "the header occurs more than once, with different values")
		}
	}
	return values[0], nil
}

// request reads who calls, under which key, and digests method and path; the digest of a body is added to it.
func (c *call) request(needKey bool) (Request, error) {
	key, err := c.header("Idempotency-Key")
	if err != nil {
		return Request{}, err
	}
	if key == "" && len(c.r.Header["Idempotency-Key"]) == 0 {
		if needKey {
			return Request{}, refuse(reject.KeyMissing, "Idempotency-Key", "the header Idempotency-Key is missing")
		}
		return Request{Caller: c.caller()}, nil
	}
	key, ok := parseKey(key)
	if !ok {
		return Request{}, refuse(reject.InvalidRequest, "Idempotency-Key", "want 1 to 255 visible ASCII characters, bare or in quotes")
	}
	return Request{Caller: c.caller(), Key: key, Hash: newDigest().text(c.r.Method).text(c.r.URL.Path).sum()}, nil
}

// prepare reads a changing request with a JSON body: the body and its key.
func (c *call) prepare(needKey bool) ([]byte, Request, error) {
	data, err := c.read()
	if err != nil {
		return nil, Request{}, err
	}
	r, err := c.request(needKey)
	if r.Key != "" {
		r.Hash = digest(r.Hash).json(data).sum()
	}
	return data, r, err
}

// parseKey takes the quotes off an idempotency key, so that the structured form of the IETF draft and the bare one
// name the same key.
func parseKey(s string) (string, bool) {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
		if strings.ContainsAny(s, `"\`) {
			return "", false
		}
	}
	if len(s) < 1 || len(s) > 255 {
		return "", false
	}
	for i := range len(s) {
		if s[i] <= 0x20 || s[i] >= 0x7f {
			return "", false
		}
	}
	return s, true
}

// caller names who calls without keeping the secret: a digest of the Authorization header.
func (c *call) caller() string {
	auth := c.r.Header["Authorization"]
	if len(auth) == 0 || auth[0] == "" {
		return "anonymous"
	}
	sum := sha256.Sum256([]byte(auth[0]))
	return hex.EncodeToString(sum[:12])
}

// wait returns how long the request is ready to wait for the saga (RFC 7240, Prefer).
func (c *call) wait() time.Duration {
	for _, header := range c.r.Header["Prefer"] {
		for preference := range strings.SplitSeq(header, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(preference), "=")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "respond-async":
				return 0
			case "wait":
				// What cannot be understood is ignored, says the RFC: a preference is no condition.
				if n, err := strconv.ParseUint(strings.Trim(value, `" `), 10, 31); err == nil {
					return min(time.Duration(n)*time.Second, c.s.cfg.MaxWait)
				}
			}
		}
	}
	return c.s.cfg.Wait
}

// ifMatch returns the revision in If-Match, 0 for any.
func (c *call) ifMatch() (uint64, error) {
	v, err := c.header("If-Match")
	if err != nil || v == "" || v == "*" {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.Trim(v, `"`), 10, 64)
	if err != nil || n == 0 {
		return 0, refuse(reject.InvalidRequest, "If-Match", "want a revision in quotes, as the ETag was")
	}
	return n, nil
}

// consistency reads how fresh a read has to be.
func (c *call) consistency() (Consistency, error) {
	var k Consistency
	mark, err := c.header("Hanse-Min-Position")
	if err != nil {
		return k, err
	}
	if mark != "" {
		if !validMark(mark) {
			return k, refuse(reject.InvalidRequest, "Hanse-Min-Position", "want a Hanse-Position of an answer, for example order/0:1234")
		}
		k.AtLeast = Mark(mark)
	}
	switch v := c.query("consistency"); v {
	case "", "linearizable":
	case "stale":
		k.Stale = true
	default:
		return k, refuse(reject.InvalidRequest, "consistency", "want linearizable or stale")
	}
	return k, nil
}

func validMark(s string) bool {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return false
	}
	_, err := shard.ParseID(s[:i])
	if err == nil {
		_, err = strconv.ParseUint(s[i+1:], 10, 64)
	}
	return err == nil
}

// query returns a query parameter; the usual request has none and pays nothing.
func (c *call) query(name string) string {
	if c.r.URL.RawQuery == "" {
		return ""
	}
	return c.r.URL.Query().Get(name)
}

// number reads a whole number in a query parameter or path segment.
func number(name, value string, fallback, lo, hi uint64) (uint64, error) {
	if value == "" {
		return fallback, nil
	}
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil || n < lo || n > hi {
		return 0, refuse(reject.InvalidRequest, name, fmt.Sprintf("want a whole number from %d to %d", lo, hi))
	}
	return n, nil
}

// flag reads a query parameter that is true or false, false unless stated.
func (c *call) flag(name string) (bool, error) {
	switch c.query(name) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, refuse(reject.InvalidRequest, name, "want true or false")
}

// limit reads the size of a page.
func (c *call) limit() (int, error) {
	n, err := number("limit", c.query("limit"), 50, 1, 1000)
	return int(n), err
}

// circumstances writes the headers that every answer of the backend has.
func circumstances[T any](c *call, a Answer[T]) {
	h := c.w.Header()
	if a.Mark != "" {
		c.shard, _, _ = strings.Cut(string(a.Mark), ":")
		h["Hanse-Position"] = []string{string(a.Mark)}
	}
	if a.Replayed {
		h["Idempotent-Replayed"] = []string{"true"}
	}
}

var (
	jsonType    = []string{"application/json"}
	noStoreOnly = []string{"no-store"}
)

// etag returns the revision in quotes.
func etag(revision uint64) string {
	return string(append(strconv.AppendUint([]byte{'"'}, revision, 10), '"'))
}

// json answers with the JSON that write appends.
func (c *call) json(status int, write func(e *encoder)) error {
	e := encoder{b: c.buffer()}
	write(&e)
	c.send(status, "", e.b)
	return nil
}

// send writes the answer; an empty media type stands for JSON. The buffer is kept for the next call.
func (c *call) send(status int, mediaType string, body []byte) {
	h := c.w.Header()
	if mediaType == "" {
		h["Content-Type"] = jsonType
	} else {
		h["Content-Type"] = []string{mediaType}
	}
	if status != http.StatusNoContent && status != http.StatusNotModified {
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	c.status = status
	c.w.WriteHeader(status)
	if c.r.Method != http.MethodHead && len(body) > 0 {
		_, _ = c.w.Write(body) // the client is gone: it will ask again with its key
	}
	c.out = body[:0]
}
