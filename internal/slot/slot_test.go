package slot

import "testing"

func TestOf(t *testing.T) {
	// Values from the Redis Cluster specification and redis-cli's CLUSTER KEYSLOT.
	for key, want := range map[string]Slot{
		"123456789":            0x31c3 % Count,
		"foo":                  12182,
		"{user1000}.following": Of("user1000"),
		"{user1000}.followers": Of("user1000"),
		"foo{{bar}}zap":        Of("{bar"),
		"":                     0,
	} {
		if got := Of(key); got != want {
			t.Errorf("Of(%q) = %d, want %d", key, got, want)
		}
	}
	if Of("foo{}{bar}") == Of("bar") {
		t.Error("an empty first tag must not count: the whole key is hashed")
	}
}
