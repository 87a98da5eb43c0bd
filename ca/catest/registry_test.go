package catest_test

import (
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca/catest"
)

func TestRegistry_KeepsTheContract(t *testing.T) {
	catest.RunRegistry(t, func(t *testing.T) catest.Subject {
		r := catest.NewRegistry(t)
		return catest.Subject{
			Registry: r, Remove: func(id string) { r.SetRole(id, api.Role_ROLE_UNSPECIFIED) }, Grant: r.AddGrant,
		}
	})
}
