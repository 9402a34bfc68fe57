package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
)

// conn is an HTTP/1.1 connection that is kept alive: one request at a time, answers with a Content-Length, buffers used
// again. That is all a benchmark needs, at a tenth of the price of net/http's client.
type conn struct {
	net  net.Conn
	read *bufio.Reader
	body []byte
	stop func() bool // detaches the connection from the context it was made with
}

func dial(ctx context.Context, addr string) (*conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	// Closing is how the end of ctx reaches a blocked read; a deadline for each request would cost more than the parsing.
	return &conn{net: c, read: bufio.NewReaderSize(c, 16<<10), stop: context.AfterFunc(ctx, func() { c.Close() })}, nil
}

func (c *conn) close() {
	c.stop()
	c.net.Close()
}

var errMalformed = errors.New("malformed HTTP answer")

// do sends a request and reads its answer. The body is valid until the next call. After an error the
// connection is of no use any more.
func (c *conn) do(request []byte) (status int, body []byte, err error) {
	if _, err := c.net.Write(request); err != nil {
		return 0, nil, err
	}
	line, err := c.line()
	if err != nil {
		return 0, nil, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, nil, fmt.Errorf("%w: it begins with %.40q", errMalformed, line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, fmt.Errorf("%w: it begins with %.40q", errMalformed, line)
	}
	length, closes := -1, false
	for {
		line, err := c.line()
		if err != nil {
			return 0, nil, err
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch value = bytes.TrimSpace(value); {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil || length < 0 || length > 64<<20 {
				return 0, nil, fmt.Errorf("%w: a body of %.20q bytes", errMalformed, value)
			}
		case bytes.EqualFold(name, []byte("Connection")):
			closes = bytes.EqualFold(value, []byte("close"))
		}
	}
	if length < 0 {
		return 0, nil, fmt.Errorf("%w: it does not say how long it is", errMalformed)
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	c.body = c.body[:length]
	if _, err := io.ReadFull(c.read, c.body); err != nil {
		return 0, nil, err
	}
	if closes {
		c.close() // the next request fails and goes out on a new connection
	}
	return status, c.body, nil
}

func (c *conn) line() ([]byte, error) {
	line, err := c.read.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}
