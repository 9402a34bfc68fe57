package notification

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// SecretPrefix begins every secret; the rest is base64.
const SecretPrefix = "whsec_"

// Sign returns the webhook-signature of a delivery at a time in seconds since 1970.
func Sign(secret, id string, timestamp int64, body []byte) (string, error) {
	encoded, ok := strings.CutPrefix(secret, SecretPrefix)
	if !ok {
		return "", errors.New("notification: a secret begins with " + SecretPrefix)
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return "", fmt.Errorf("notification: decode secret: %w", err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id))
	mac.Write([]byte{'.'})
	mac.Write([]byte(strconv.FormatInt(timestamp, 10)))
	mac.Write([]byte{'.'})
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)), nil
}

// Tolerance is how old or early a delivery may be for [Verify].
const Tolerance = 5 * time.Minute

// Verify checks a delivery as a receiver does, at the time now in seconds since 1970. The header may hold several
// signatures, separated by spaces.
func Verify(secret, id string, timestamp int64, signature string, body []byte, now int64) error {
	if d := now - timestamp; d > int64(Tolerance/time.Second) || d < -int64(Tolerance/time.Second) {
		return fmt.Errorf("notification: the delivery is %d s old", now-timestamp)
	}
	want, err := Sign(secret, id, timestamp, body)
	if err != nil {
		return err
	}
	for got := range strings.SplitSeq(signature, " ") {
		if hmac.Equal([]byte(got), []byte(want)) { // in constant time
			return nil
		}
	}
	return errors.New("notification: no signature matches")
}

// pauses are the times between attempts, as the specification recommends them.
var pauses = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

// Next returns how long to wait after so many failed attempts, with a random number for the jitter of up to a tenth;
// false when it is time to give up and disable the receiver.
func Next(attempts int, random uint64) (time.Duration, bool) {
	if attempts < 1 || attempts > len(pauses) {
		return 0, false
	}
	pause := pauses[attempts-1]
	return pause + time.Duration(random%uint64(pause/10+1)), true
}
