package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/e2e/lab"
	"github.com/skep-io/skep/internal/fault"
)

var (
	kills    = flag.Int("kills", 50, "how often TestKill ends managers with SIGKILL while writes go on")
	killSeed = flag.Uint64("kill-seed", 0, "what TestKill's choices come from; 0 is a fresh one, which is printed")
)

const (
	killWriters = 4
	// writePause keeps the clients from being the load that is tested.
	writePause = 10 * time.Millisecond
	// writesPerKill are acknowledged between two kills at least, so that 50 kills come during 1,000 writes or more.
	writesPerKill = 20
	// countLabel is the label of node m1 in which writers count.
	countLabel = "count"
	// killPatience bounds a round: an election, a start, and a machine that does much else.
	killPatience = time.Minute
)

// Three real managers are killed again and again while clients write: every acknowledged write is there afterwards, on each of
// them (I2), none happened twice, and nothing that was refused.
func TestKill_LosesNoAcknowledgedWriteAndRepeatsNone(t *testing.T) {
	t.Parallel()
	seed := *killSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("repeat with -kill-seed %d", seed)
	network := newLab(t)
	managers := swarmOf(t, network, "m1", "m2", "m3")
	writers := make([]*writer, killWriters)
	var acknowledged atomic.Int64
	for i := range writers {
		writers[i] = &writer{client: newClient(t, seed+uint64(i), managers...), name: fmt.Sprint("w", i), acknowledged: &acknowledged, live: map[string]*api.Secret{}}
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, w := range writers {
		wg.Go(func() { w.run(t, stop) })
	}
	k := &killer{
		managers: managers, client: newClient(t, seed+killWriters, managers...),
		random: rand.New(rand.NewPCG(seed, 1)), acknowledged: &acknowledged,
	}
	for round := range *kills {
		if err := k.round(t.Context()); err != nil {
			t.Errorf("kill %d: %v", round+1, err)
		}
		if t.Failed() {
			break
		}
	}
	close(stop)
	wg.Wait()
	t.Logf("%d kills of %v, %d acknowledged writes", *kills, k.victims, acknowledged.Load())
	checkWrites(t, managers, writers)
}

// killer ends managers and starts them again.
type killer struct {
	managers     []*lab.Machine
	client       *client
	random       *rand.Rand
	acknowledged *atomic.Int64
	victims      map[string]int // kills of "leader", "follower", "two" and "all"
}

// round kills some managers at a random moment, starts them again at another, and waits until enough was written.
func (k *killer) round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	began := k.acknowledged.Load()
	victims, err := k.choose(ctx)
	if err != nil {
		return err
	}
	k.wait(ctx, 100*time.Millisecond)
	for _, m := range victims {
		if err := m.Kill(); err != nil {
			return err
		}
	}
	if len(victims) == 1 && k.random.IntN(2) == 0 {
		// The others go on without it first.
		if err := k.written(ctx, k.acknowledged.Load()+writesPerKill/2); err != nil {
			return err
		}
	}
	k.wait(ctx, 100*time.Millisecond)
	for _, m := range victims {
		if err := m.Start(ctx); err != nil {
			return err
		}
	}
	return k.written(ctx, began+writesPerKill)
}

// choose picks the victims: most often the leader, sometimes more than a majority survives.
func (k *killer) choose(ctx context.Context) ([]*lab.Machine, error) {
	leader, err := k.client.leaderOf(ctx, k.managers...)
	if err != nil {
		return nil, fmt.Errorf("find the leader: %w", err)
	}
	order := []*lab.Machine{leader}
	for _, i := range k.random.Perm(len(k.managers)) {
		if k.managers[i] != leader {
			order = append(order, k.managers[i])
		}
	}
	if k.victims == nil {
		k.victims = map[string]int{}
	}
	switch n := k.random.IntN(10); {
	case n == 0:
		k.victims["all"]++
		return order, nil
	case n == 1:
		k.victims["two"]++
		return order[:2], nil
	case n < 7:
		k.victims["leader"]++
		return order[:1], nil
	default:
		k.victims["follower"]++
		return order[1:2], nil
	}
}

// wait waits for a random time below most.
func (k *killer) wait(ctx context.Context, most time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(k.random.Int64N(int64(most)))):
	}
}

// written waits until that many writes are acknowledged.
func (k *killer) written(ctx context.Context, count int64) error {
	for k.acknowledged.Load() < count {
		if ctx.Err() != nil {
			return fmt.Errorf("nothing is written any more: %d of %d writes", k.acknowledged.Load(), count)
		}
		pause(ctx)
	}
	return nil
}

// writer is a client that remembers what was acknowledged.
type writer struct {
	*client
	name         string
	acknowledged *atomic.Int64
	live         map[string]*api.Secret // by name, as the answer to their creation showed them
	gone         []string
	increments   int
}

// run writes until stop is closed. It knows then what became of each of its requests.
func (w *writer) run(t *testing.T, stop <-chan struct{}) {
	for n := 0; ; n++ {
		ctx, cancel := context.WithTimeout(t.Context(), killPatience)
		err := w.write(ctx, n)
		cancel()
		if err != nil {
			t.Errorf("%s, write %d: %v", w.name, n, err)
			return
		}
		select {
		case <-stop:
			return
		case <-time.After(writePause):
		}
	}
}

func (w *writer) write(ctx context.Context, n int) error {
	name := fmt.Sprintf("%s-%d", w.name, n)
	switch n % 5 {
	case 0:
		return w.increment(ctx)
	case 1:
		return w.createAndRemove(ctx, name)
	case 2:
		return w.createTwice(ctx, name)
	default:
		return w.create(ctx, name)
	}
}

func (w *writer) create(ctx context.Context, name string) error {
	secret, err := w.createSecret(ctx, name, []byte("a value"))
	if err == nil {
		w.acknowledged.Add(1)
		w.live[name] = secret
	}
	return err
}

// createAndRemove would leave a secret behind if the creation were applied again later.
func (w *writer) createAndRemove(ctx context.Context, name string) error {
	if _, err := w.createSecret(ctx, name, []byte("a value")); err != nil {
		return err
	}
	w.acknowledged.Add(1)
	if err := w.removeSecret(ctx, name); err != nil {
		return err
	}
	w.acknowledged.Add(1)
	w.gone = append(w.gone, name)
	return nil
}

// createTwice asks for a name that it has already, which must be refused and change nothing.
func (w *writer) createTwice(ctx context.Context, name string) error {
	if err := w.create(ctx, name); err != nil {
		return err
	}
	_, err := w.createSecret(ctx, name, []byte("another value"))
	if err == nil {
		return fmt.Errorf("%s was created twice", name)
	}
	if fault.KindOf(err) != fault.AlreadyExists {
		return err
	}
	return nil
}

// increment raises a number that all writers share.
func (w *writer) increment(ctx context.Context) error {
	err := w.setLabel(ctx, "m1", countLabel, func(old string) string {
		n, _ := strconv.Atoi(old) // empty at first
		return strconv.Itoa(n + 1)
	})
	if err == nil {
		w.acknowledged.Add(1)
		w.increments++
	}
	return err
}

// checkWrites compares what each manager has on its disk with what was acknowledged.
func checkWrites(t *testing.T, managers []*lab.Machine, writers []*writer) {
	t.Helper()
	ctx, cancel := deadline()
	defer cancel()
	settle(ctx, t, "last", managers)
	for _, m := range managers {
		if err := m.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	var first []*api.Secret
	for _, m := range managers {
		secrets, count := parts(stateOnDisk(t, m))
		checkSecrets(t, m.Name, secrets, writers)
		checkCount(t, m.Name, count, writers)
		if first == nil {
			first = secrets
		}
		if diff := cmp.Diff(first, secrets, protocmp.Transform()); diff != "" {
			t.Errorf("%s and %s differ:\n%s", managers[0].Name, m.Name, diff)
		}
	}
}

// parts returns the secrets of a state, and the number that writers raise.
func parts(state *api.StoreSnapshot) (secrets []*api.Secret, count string) {
	for _, o := range state.GetObjects() {
		if secret := o.GetSecret(); secret != nil {
			secrets = append(secrets, secret)
		}
		if n := o.GetNode().GetSpec().GetAnnotations().GetLabels()[countLabel]; n != "" {
			count = n
		}
	}
	return secrets, count
}

func checkSecrets(t *testing.T, on string, secrets []*api.Secret, writers []*writer) {
	t.Helper()
	found := map[string][]*api.Secret{}
	for _, secret := range secrets {
		name := secret.GetSpec().GetAnnotations().GetName()
		found[name] = append(found[name], secret)
	}
	for _, w := range writers {
		for name, want := range w.live {
			got := found[name]
			delete(found, name)
			if len(got) != 1 || got[0].GetId() != want.GetId() || got[0].GetMeta().GetVersion() != want.GetMeta().GetVersion() ||
				string(got[0].GetSpec().GetData()) != "a value" {
				t.Errorf("%s: secret %s was acknowledged as %s at %d, but there is %v", on, name, want.GetId(), want.GetMeta().GetVersion(), got)
			}
		}
		for _, name := range w.gone {
			if len(found[name]) > 0 {
				t.Errorf("%s: secret %s is there again after its removal", on, name)
			}
		}
	}
	for name := range found {
		t.Errorf("%s: secret %s is there, but nobody was told so", on, name)
	}
}

func checkCount(t *testing.T, on string, count string, writers []*writer) {
	t.Helper()
	want := 0
	for _, w := range writers {
		want += w.increments
	}
	if count != strconv.Itoa(want) {
		t.Errorf("%s: %d increments were acknowledged, but the count is %s", on, want, count)
	}
}

// settle waits until every manager has applied all that was acknowledged, and a service of that name.
func settle(ctx context.Context, t *testing.T, name string, managers []*lab.Machine) {
	t.Helper()
	c := newClient(t, rand.Uint64(), managers...)
	last, err := c.createService(ctx, name)
	if err != nil {
		t.Fatalf("the last write: %v", err)
	}
	for _, control := range c.controls {
		for {
			stream, err := control.WatchService(ctx, &api.WatchServiceRequest{ServiceId: last.GetId()})
			if err == nil {
				_, err = stream.Recv()
			}
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				t.Fatalf("a manager does not catch up: %v", err)
			}
			pause(ctx)
		}
	}
}
