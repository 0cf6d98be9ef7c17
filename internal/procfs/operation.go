package procfs

import (
	"slices"
	"strings"
)

// primitives are the kernel's functions to wait with, by what they wait for:
// they say how a task waits and not in what. Since Linux 5.2 /proc/PID/stack
// leaves out those in the section .sched.text (kernel/stacktrace.c,
// stack_trace_consume_entry_nosched), which are most of them, but not those the
// compiler has split or put elsewhere. A name stands for itself, one that ends
// in "*" for all that begin so; leading underscores and what the compiler
// appends (.isra.0) do not count.
var primitives = []struct {
	source    string
	functions []string
}{
	{"kernel/sched", []string{"schedule*", "preempt_schedule*", "io_schedule*", "yield*", "context_switch", "switch_to*", "wait_for_completion*", "wait_for_common*", "do_wait_for_common*",
		"wait_woken", "bit_wait*", "wait_on_bit*", "out_of_line_wait_on_bit*", "wait_on_atomic_t", "out_of_line_wait_on_atomic_t", "wait_var_event*", "do_wait_intr*"}},
	{"kernel/time", []string{"schedule_timeout*", "schedule_hrtimeout*", "msleep*", "usleep_range*", "fsleep"}},
	{"kernel/locking", []string{"mutex_lock*", "ww_mutex_*", "rt_mutex_*", "rt_spin_*", "rtlock_*", "rwbase_*", "rwsem_*", "down_read*", "down_write*", "down", "down_common", "down_interruptible", "down_killable", "down_timeout",
		"percpu_rwsem_wait*", "percpu_down_read*", "percpu_down_write*", "queued_spin_*", "queued_read_*", "queued_write_*"}},
	{"kernel/rcu", []string{"synchronize_rcu*", "synchronize_srcu*", "synchronize_sched*", "synchronize_net", "wait_rcu_gp*", "rcu_barrier*", "srcu_barrier", "cond_synchronize_rcu*"}},
	{"kernel/workqueue.c", []string{"flush_work*", "flush_workqueue*", "flush_delayed_work", "drain_workqueue", "cancel_work_sync*", "cancel_delayed_work_sync*"}},
	{"mm/filemap.c, mm/page-writeback.c", []string{"folio_wait_*", "folio_lock*", "folio_put_wait_locked*", "put_and_wait_on_page_locked*", "wait_on_page_*", "lock_page*", "wait_for_stable_page"}},
	{"fs/buffer.c", []string{"wait_on_buffer", "lock_buffer"}},
	{"mm/percpu.c", []string{"pcpu_alloc*"}},
	{"block", []string{"submit_bio_wait", "blk_io_schedule", "blk_wait_io", "bio_wait*"}},
	{"net/core/rtnetlink.c", []string{"rtnl_lock*", "rtnl_net_lock*"}},
	{"fs/fuse/dev.c", []string{"request_wait_answer", "fuse_simple_request", "fuse_request_send*"}},
	{"net/sunrpc", []string{"rpc_wait_bit_killable", "rpc_execute", "rpc_run_task", "rpc_call_sync", "rpc_wait_for_completion_task"}},
}

// whole are operations of many steps, each of which may be what waits: the
// initializers and the exits of a network namespace (net/core/net_namespace.c).
var whole = []string{"copy_net_ns", "cleanup_net"}

// entries are the outermost functions of a stack, which say nothing of the call
// (arch/x86/entry, arch/arm64/kernel/entry*, kernel/fork.c).
var entries = []string{"do_syscall_64", "do_int80_syscall_32", "do_fast_syscall_32", "x64_sys_call", "entry_*", "asm_*", "exc_page_fault", "ret_from_fork*", "el0_*", "el0t_*", "do_el0_svc", "invoke_syscall", "kthread"}

// Operation is what a task does in the kernel that has called these functions,
// the last one first, as a stack file has them: the first that is more than a
// way to wait, such as copy_net_ns for rwsem_down_read_slowpath, "" for none.
func Operation(stack []string) string {
	for _, function := range stack {
		if slices.Contains(whole, plain(function)) {
			return function
		}
	}
	for _, function := range stack {
		name := plain(function)
		if isEntry(name) {
			return ""
		}
		if name != "" && !isPrimitive(name) {
			return function
		}
	}
	return ""
}

// plain is the name in the source of a function that the compiler has cloned or
// split (.isra.0, .constprop.0, .part.0, .cold, .llvm.123), or that has a variant
// with underscores.
func plain(function string) string {
	name, _, _ := strings.Cut(function, ".")
	return strings.TrimLeft(name, "_")
}

func isPrimitive(name string) bool {
	for _, p := range primitives {
		if isOneOf(name, p.functions) {
			return true
		}
	}
	return false
}

func isEntry(name string) bool { return isOneOf(name, entries) }

func isOneOf(name string, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool {
		prefix, ok := strings.CutSuffix(n, "*")
		return name == n || ok && strings.HasPrefix(name, prefix)
	})
}
