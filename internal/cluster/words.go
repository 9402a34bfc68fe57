package cluster

import "fmt"

var healthNames = [...]string{Healthy: "healthy", Suspect: "suspect", Unhealthy: "unhealthy", Dead: "dead"}

// String returns the name that people and the API use.
func (h Health) String() string {
	if int(h) < len(healthNames) {
		return healthNames[h]
	}
	return fmt.Sprintf("health%d", uint8(h))
}
