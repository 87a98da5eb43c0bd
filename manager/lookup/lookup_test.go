package lookup_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/lookup"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

func TestOne(t *testing.T) {
	s := storetest.New(t)
	named := func(id, name string) *api.Service {
		return &api.Service{Id: id, Spec: &api.ServiceSpec{Annotations: &api.Annotations{Name: name}}}
	}
	storetest.Create(t, s, named("abc1", "web"))
	storetest.Create(t, s, named("abc2", "db"))
	storetest.Create(t, s, named("web2", "abc1-too"))
	for key, want := range map[string]string{
		"abc1":                    "abc1", // its id
		"web":                     "abc1", // its name, before the beginning of another's id
		"web2":                    "web2", //
		"we":                      "web2", // the beginning of one id
		"abc":                     "is ambiguous (2 matches found): abc1 (web), abc2 (db)",
		"":                        "the name or id of a service is missing",
		"none":                    "service none not found",
		strings.Repeat("x", 1000): "service " + strings.Repeat("x", 97) + "… not found",
	} {
		err := s.View(func(tx store.ReadTx) error {
			found, err := lookup.One[*api.Service](tx, key)
			if err == nil && found.GetId() != want {
				t.Errorf("%.20q: found %s, want %s", key, found.GetId(), want)
			}
			return err
		})
		if err != nil && (!strings.Contains(err.Error(), want) || fault.KindOf(err) == fault.Internal) {
			t.Errorf("%.20q: %v, want %q", key, err, want)
		}
	}
}

func TestInSlot(t *testing.T) {
	s := storetest.New(t)
	storetest.Create(t, s, &api.Service{Id: "svc1", Spec: &api.ServiceSpec{Annotations: &api.Annotations{Name: "my.web"}}})
	for id, slot := range map[string]uint64{"t1": 1, "t2": 1, "t3": 2} {
		storetest.Create(t, s, &api.Task{Id: id, ServiceId: "svc1", Slot: slot})
	}
	for key, want := range map[string]string{
		"my.web.1": "t1 t2",
		"svc1.2":   "t3",
		"my.web.9": "service my.web has no task in slot 9: `skep service ps my.web` lists those that it has",
		"my.web":   "no such task or service: my.web",
		"other.1":  "no such task or service: other.1",
		".1":       "no such task or service: .1",
		"":         "no such task or service: ",
	} {
		err := s.View(func(tx store.ReadTx) error {
			tasks, err := lookup.InSlot(tx, key)
			var ids []string
			for _, task := range tasks {
				ids = append(ids, task.GetId())
			}
			slices.Sort(ids)
			if got := strings.Join(ids, " "); err == nil && got != want {
				t.Errorf("%q: found %s, want %s", key, got, want)
			}
			return err
		})
		if err != nil && (err.Error() != want || fault.KindOf(err) != fault.NotFound) {
			t.Errorf("%q: %v, want %q", key, err, want)
		}
	}
}
