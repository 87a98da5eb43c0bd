package control

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"regexp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
)

const (
	maxServiceName = 63 // the longest DNS label, because tasks will be found by it
	maxSecretName  = 64
	// nameTries bounds the search for a generated name that is free.
	nameTries = 100
)

var (
	serviceNamePattern = regexp.MustCompile(`^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$`)
	secretNamePattern  = regexp.MustCompile(`^[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?$`)
)

// The words of generated names; their lengths are primes, so that the pairs repeat late.
func adjectives() []string {
	return []string{
		"amber", "bold", "brave", "bright", "brisk", "busy", "calm", "clever", "crisp", "eager", "early", "fair", "fond", "gentle",
		"glad", "golden", "happy", "hardy", "humble", "jolly", "keen", "kind", "light", "lively", "loyal", "lucky", "mellow",
		"merry", "mild", "modest", "neat", "nimble", "patient", "placid", "proud", "quick", "quiet", "sharp", "sleek", "spry",
		"steady", "sunny", "swift", "tidy", "tireless", "wise", "witty",
	}
}

func nouns() []string {
	return []string{
		"acacia", "apiary", "aster", "balm", "bee", "blossom", "borage", "bumblebee", "clover", "cluster", "comb", "cosmos",
		"crocus", "daisy", "drone", "fennel", "forager", "frame", "garden", "hazel", "heather", "hive", "honey", "hornet", "keeper",
		"larva", "lavender", "linden", "meadow", "mint", "nectar", "orchard", "poppy", "propolis", "queen", "sage", "scout", "skep",
		"swarm", "thyme", "wax", "willow", "worker",
	}
}

// generateName returns an adjective_noun name that no service has, the same for the same seed and store.
func generateName(tx store.ReadTx, seed string) (string, error) {
	left, right := adjectives(), nouns()
	for try := range uint32(nameTries) {
		sum := sha256.Sum256(binary.BigEndian.AppendUint32([]byte(seed), try))
		name := left[int(binary.BigEndian.Uint32(sum[0:]))%len(left)] + "_" + right[int(binary.BigEndian.Uint32(sum[4:]))%len(right)]
		if try > nameTries/2 {
			name = fmt.Sprintf("%s%d", name, try)
		}
		taken, err := store.List[*api.Service](tx, store.ByName(name))
		if err != nil {
			return "", err
		}
		if len(taken) == 0 {
			return name, nil
		}
	}
	return "", fault.New(fault.Exhausted, "found no free name for the service: give it one with --name")
}
