"""The programs that run models, as far as both sides know them: the control plane and the agent. Pure, without I/O."""
