package catest_test

import (
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
)

func TestRegistry_KeepsTheContract(t *testing.T) {
	catest.RunRegistry(t, func(t *testing.T) (ca.Registry, func(string)) {
		r := catest.NewRegistry(t)
		return r, func(id string) { r.SetRole(id, api.Role_ROLE_UNSPECIFIED) }
	})
}
