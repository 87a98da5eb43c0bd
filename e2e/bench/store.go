package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/e2e/lab"
)

// kills is how often the leader is killed to measure what that costs.
const kills = 20

// failover measures how long no write succeeds after the leader's daemon is killed.
func (b bench) failover(ctx context.Context) error {
	managers := []*lab.Machine{b.network.Machine("m1"), b.network.Machine("m2"), b.network.Machine("m3")}
	var took []time.Duration
	for i := range kills {
		leader, err := b.network.Leader(ctx, managers[0])
		if err != nil {
			return err
		}
		at := slices.Index(managers, leader)
		pause, err := b.killed(ctx, leader, managers[(at+1)%len(managers)], i)
		if err != nil {
			return err
		}
		took = append(took, pause)
		if err := leader.Start(ctx); err != nil {
			return err
		}
		if err := b.reachable(ctx, managers[0], len(managers)); err != nil {
			return err
		}
	}
	b.medianAndWorst("leader killed to the next write", took, "< 1500 ms", "< 2500 ms")
	return nil
}

// killed kills the leader, and returns how long another manager took to write again.
func (b bench) killed(ctx context.Context, leader, other *lab.Machine, round int) (took time.Duration, err error) {
	err = withControl(other, func(control api.ControlClient) error {
		if err := leader.Kill(); err != nil {
			return err
		}
		began, n := time.Now(), 0
		err := until(ctx, func() (bool, error) {
			n++
			_, err := control.CreateSecret(ctx, newSecret(fmt.Sprintf("after-%d-%d", round, n), 1))
			return err == nil, err
		})
		took = time.Since(began)
		return err
	})
	return took, err
}

// reachable returns when that many managers are, one of them as leader.
func (b bench) reachable(ctx context.Context, m *lab.Machine, managers int) error {
	return withControl(m, func(control api.ControlClient) error {
		return until(ctx, func() (bool, error) {
			response, err := control.ListNodes(ctx, &api.ListNodesRequest{})
			n, leaders := 0, 0
			for _, node := range response.GetNodes() {
				if node.GetManagerStatus().GetReachability() == api.Reachability_REACHABILITY_REACHABLE {
					n++
				}
				if node.GetManagerStatus().GetLeader() {
					leaders++
				}
			}
			return err == nil && n == managers && leaders == 1, err
		})
	})
}

func newSecret(name string, size int) *api.CreateSecretRequest {
	return &api.CreateSecretRequest{Spec: &api.SecretSpec{Annotations: &api.Annotations{Name: name}, Data: make([]byte, size)}}
}

// restart measures how soon a manager of one serves again, and what memory it has then, with a state that grows.
func (b bench) restart(ctx context.Context) error {
	m, err := b.network.NewMachine("s1")
	if err != nil {
		return err
	}
	if err := errors.Join(m.Start(ctx), b.network.Swarm(ctx, "s1")); err != nil {
		return err
	}
	for _, size := range []struct {
		from, to     int
		mark, memory string
	}{{0, 10_000, "< 500 ms", ""}, {10_000, 100_000, "< 3000 ms", "< 400 MB"}} {
		began := time.Now()
		if err := b.fill(ctx, m, size.from, size.to); err != nil {
			return err
		}
		rate := float64(size.to-size.from) / time.Since(began).Seconds()
		b.row(fmt.Sprintf("secrets of 1 KiB created by 64 clients, %d to %d", size.from, size.to), fmt.Sprintf("%.0f/s", rate), "")
		if err := m.Kill(); err != nil {
			return err
		}
		took, err := b.serving(ctx, m)
		if err != nil {
			return err
		}
		b.row(fmt.Sprintf("manager with %d secrets: started to serving", size.to), milliseconds(took), size.mark)
		kib, err := pss(m.DaemonPID())
		if err != nil {
			return err
		}
		b.row(fmt.Sprintf("manager with %d secrets: PSS of the daemon", size.to), fmt.Sprintf("%.1f MB", float64(kib)/1024), size.memory)
	}
	return nil
}

// fill creates secrets of 1 KiB through the API.
func (b bench) fill(ctx context.Context, m *lab.Machine, from, to int) error {
	return withControl(m, func(control api.ControlClient) error {
		numbers, failed := make(chan int), make(chan error, 1)
		var clients sync.WaitGroup
		for range 64 {
			clients.Go(func() {
				for i := range numbers {
					if _, err := control.CreateSecret(ctx, newSecret(fmt.Sprint("secret-", i), 1<<10)); err != nil {
						select {
						case failed <- err:
						default:
						}
					}
				}
			})
		}
		for i := from; i < to; i++ {
			numbers <- i
		}
		close(numbers)
		clients.Wait()
		select {
		case err := <-failed:
			return err
		default:
			return nil
		}
	})
}

// serving starts a daemon, and returns how long it took until a secret could be written.
func (b bench) serving(ctx context.Context, m *lab.Machine) (took time.Duration, err error) {
	began := time.Now()
	if err := m.Start(ctx); err != nil {
		return 0, err
	}
	err = withControl(m, func(control api.ControlClient) error {
		return until(ctx, func() (bool, error) {
			_, err := control.CreateSecret(ctx, newSecret(fmt.Sprint("serving-", time.Now().UnixNano()), 1))
			return err == nil, err
		})
	})
	return time.Since(began), err
}
