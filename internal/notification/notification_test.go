package notification

import (
	"strings"
	"testing"
	"time"
)

// The vector of the Standard Webhooks specification's reference implementations.
const (
	vectorSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	vectorID     = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	vectorTime   = 1614265330
	vectorBody   = `{"test": 2432232314}`
	vectorSign   = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func TestSign_agrees_with_the_specification(t *testing.T) {
	got, err := Sign(vectorSecret, vectorID, vectorTime, []byte(vectorBody))
	if err != nil || got != vectorSign {
		t.Errorf("Sign = %q, %v, want %q", got, err, vectorSign)
	}
	for _, secret := range []string{"", "abc", "whsec_!!"} {
		if _, err := Sign(secret, vectorID, vectorTime, nil); err == nil {
			t.Errorf("Sign with secret %q succeeded", secret)
		}
	}
}

func TestVerify_refuses_what_was_changed_or_is_old(t *testing.T) {
	ok := func(id string, ts int64, sig, body string, now int64) error {
		return Verify(vectorSecret, id, ts, sig, []byte(body), now)
	}
	if err := ok(vectorID, vectorTime, "v1,xxx "+vectorSign, vectorBody, vectorTime+10); err != nil {
		t.Errorf("a good delivery: %v", err)
	}
	for name, err := range map[string]error{
		"body":      ok(vectorID, vectorTime, vectorSign, vectorBody+" ", vectorTime),
		"id":        ok("other", vectorTime, vectorSign, vectorBody, vectorTime),
		"timestamp": ok(vectorID, vectorTime+1, vectorSign, vectorBody, vectorTime),
		"old":       ok(vectorID, vectorTime, vectorSign, vectorBody, vectorTime+301),
		"early":     ok(vectorID, vectorTime, vectorSign, vectorBody, vectorTime-301),
		"none":      ok(vectorID, vectorTime, "", vectorBody, vectorTime),
	} {
		if err == nil {
			t.Errorf("a delivery with another %s was accepted", name)
		}
	}
}

func TestNext_waits_longer_and_gives_up(t *testing.T) {
	last := time.Duration(0)
	n := 0
	for {
		pause, ok := Next(n+1, 0)
		if !ok {
			break
		}
		if pause <= last {
			t.Errorf("after %d attempts: %v, want more than %v", n+1, pause, last)
		}
		if jittered, _ := Next(n+1, ^uint64(0)); jittered < pause || jittered > pause+pause/10 {
			t.Errorf("after %d attempts with jitter: %v, want %v to a tenth more", n+1, jittered, pause)
		}
		last = pause
		n++
	}
	if n < 5 || !strings.HasPrefix(vectorSecret, SecretPrefix) {
		t.Errorf("gives up after %d attempts", n)
	}
}
