package rest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// BenchmarkPlaceOverTCP posts orders over 16 connections that are kept alive. Each client has a thread of its own and blocks in
// the kernel, so that what its thread costs can be taken off: server-µs/op is the processor time of the server alone, net/http,
// its system calls and collecting garbage included. The floor is net/http that reads the body and writes an answer as long.
func BenchmarkPlaceOverTCP(b *testing.B) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/v1/orders", strings.NewReader(threeLines))
	r.Header.Set("Idempotency-Key", "536365")
	instantDoor(b).ServeHTTP(w, r)
	answer := w.Body.Bytes()
	b.Run("door", func(b *testing.B) { overTCP(b, instantDoor(b)) })
	b.Run("floor", func(b *testing.B) {
		overTCP(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header()["Content-Type"] = jsonType
			w.Header()["Content-Length"] = []string{strconv.Itoa(len(answer))}
			w.WriteHeader(http.StatusCreated)
			_, _ = w.Write(answer)
		}))
	})
}

func overTCP(b *testing.B, h http.Handler) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := DefaultConfig().Server(h, newDiscard())
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	defer func() { _ = server.Close(); <-done }()

	const clients = 16
	request := []byte("POST /v1/orders HTTP/1.1\r\nHost: hanse\r\nContent-Type: application/json\r\nIdempotency-Key: 536365\r\nContent-Length: " +
		strconv.Itoa(len(threeLines)) + "\r\n\r\n" + threeLines)
	var left, spent atomic.Int64
	left.Store(int64(b.N))
	before := processorTime(b, syscall.RUSAGE_SELF)
	b.ReportAllocs()
	b.ResetTimer()
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			start := processorTime(b, rusageThread)
			if err := post(l.Addr().(*net.TCPAddr).Port, request, &left); err != nil {
				b.Error(err)
			}
			spent.Add(int64(processorTime(b, rusageThread) - start))
		})
	}
	all.Wait()
	b.StopTimer()
	total := processorTime(b, syscall.RUSAGE_SELF) - before
	b.ReportMetric(float64(total-time.Duration(spent.Load()))/float64(time.Microsecond)/float64(b.N), "server-µs/op")
}

// post sends the request until none is left, over a socket in blocking mode.
func post(port int, request []byte, left *atomic.Int64) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
		return err
	}
	buf := make([]byte, 8192)
	for left.Add(-1) >= 0 {
		if n, err := syscall.Write(fd, request); err != nil || n != len(request) {
			return fmt.Errorf("write: %d of %d bytes: %w", n, len(request), err)
		}
		n, want := 0, 0
		for want == 0 || n < want {
			got, err := syscall.Read(fd, buf[n:])
			if err != nil || got == 0 {
				return fmt.Errorf("read: %d bytes: %w", got, err)
			}
			n += got
			if want == 0 {
				if want, err = answerLength(buf[:n]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// answerLength returns the length of a whole answer, 0 while its header is not complete.
func answerLength(b []byte) (int, error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return 0, nil
	}
	const field = "Content-Length: "
	i := bytes.Index(b[:end], []byte(field))
	if i < 0 || !bytes.HasPrefix(b, []byte("HTTP/1.1 201 ")) {
		return 0, fmt.Errorf("answer is %q", b[:end])
	}
	value, _, _ := bytes.Cut(b[i+len(field):], []byte("\r"))
	length, err := strconv.Atoi(string(value))
	return end + 4 + length, err
}

const rusageThread = 1 // RUSAGE_THREAD of getrusage(2)

func processorTime(tb testing.TB, of int) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(of, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
