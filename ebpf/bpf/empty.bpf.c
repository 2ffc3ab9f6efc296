// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* The least that any hook on system calls costs: benches compare with it. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

SEC("tp_btf/sys_exit")
int empty(void *context)
{
	return 0;
}
