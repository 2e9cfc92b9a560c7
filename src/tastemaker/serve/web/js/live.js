export const title=()=>'live'; export async function open(root){ return {}; }
