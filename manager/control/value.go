package control

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/expand"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// Sizes in bytes of the largest values.
const (
	// maxSecret is 500 KiB, one byte more than Swarm's.
	maxSecret = 500 * 1024
	// maxConfig is 1000 KiB, one byte more than Swarm's. An object of the store is not much larger.
	maxConfig = 1000 * 1024
)

// templateDriver is Docker's name of the one kind of templates that there is.
const templateDriver = "golang"

// A value is a secret or a config: what is the same for both is said of values. They differ in who may read them.

// valueObject is a value in the store.
type valueObject interface {
	store.Object
	*api.Secret | *api.Config
	GetVersion() uint64
	GetValueCreatedAt() *timestamppb.Timestamp
}

// specOf returns the spec of a value.
func specOf[T valueObject](value T) valueSpec {
	switch o := any(value).(type) {
	case *api.Secret:
		return o.GetSpec()
	case *api.Config:
		return o.GetSpec()
	default:
		panic("control: a type of values without a spec")
	}
}

// valueSpec is the spec of a value.
type valueSpec interface {
	proto.Message
	GetAnnotations() *api.Annotations
	GetData() []byte
	GetTemplateDriver() string
}

// validateValue reports all problems of a value's spec, without repeating any of its data.
func validateValue(kind object.Kind, most int, spec valueSpec) error {
	p := new(problems)
	p.knownFields(spec)
	name := spec.GetAnnotations().GetName()
	switch {
	case name == "":
		p.add("annotations.name", "name must be provided")
	case len(name) > maxSecretName || !secretNamePattern.MatchString(name):
		p.add("annotations.name", "invalid name, only %d [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]",
			maxSecretName)
	}
	p.labels("annotations.labels", spec.GetAnnotations().GetLabels())
	if n := len(spec.GetData()); n == 0 || n > most {
		p.add("data", "%s data must be 1 to %d bytes, got %d", kind, most, n)
	}
	switch driver := spec.GetTemplateDriver(); driver {
	case "":
	case templateDriver:
		if err := expand.Check(string(spec.GetData()), true); err != nil {
			p.add("data", "%v", err)
		}
	default:
		p.add("template_driver", "unknown template driver %q: golang is the only one", clip(driver))
	}
	return p.err()
}

// createValue stores the new value that fresh makes, and returns it.
func createValue[T valueObject](ctx context.Context, s *Server, id string, fresh func() T) (T, error) {
	var none T
	err := s.update(ctx, id, func(tx store.Tx) error {
		value := fresh()
		err := tx.Create(value)
		if errors.Is(err, store.ErrNameConflict) {
			return fault.New(fault.AlreadyExists, "%s %s already exists", object.KindOf(value), object.Name(value))
		}
		return err
	})
	if err != nil {
		return none, err
	}
	return current[T](s, id)
}
